//! Throughput over the number of callers, for so many processors on each side; and whether it has the shape
//! that the paper found (§4.3): it rises until all processors are busy, and does not fall after.

pub mod picture;

use super::report::{Figure, median};

/// What counts as level: rounds of one and the same point differ by as much.
const LEVEL: f64 = 0.95;

/// One line of Figures 3 and 4.
pub struct Curve {
    pub c: usize,
    pub s: usize,
    /// There are fewer CPUs than processors.
    pub oversubscribed: bool,
    pub points: Vec<Point>,
}

/// So many callers at a time, and how many calls they made in a second, in each round.
pub struct Point {
    pub callers: u32,
    pub rates: Vec<Figure>,
}

/// The median of all rounds, and the least and the greatest.
#[derive(Clone, Copy)]
pub struct Spread {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64> + Clone) -> Self {
        Self {
            median: median(values.clone()),
            low: values.clone().fold(f64::INFINITY, f64::min),
            high: values.fold(0.0, f64::max),
        }
    }
}

impl Point {
    fn rate(&self) -> Spread {
        Spread::of(self.rates.iter().map(|rate| rate.value))
    }

    /// The rate beside that of another point. What a round measures lies so close together that the machine has not
    /// changed its mind in between.
    fn beside(&self, other: &Self) -> Spread {
        let both = self.rates.iter().zip(&other.rates);
        Spread::of(both.map(|(ours, theirs)| ours.value / theirs.value))
    }
}

impl Curve {
    /// Whether throughput rises until T ≥ C + S (with S = 0, as far as was measured), and does not fall after: it
    /// falls if no round has it as high as where it was highest before.
    pub fn verdict(&self) -> String {
        let Self { c, s, points, .. } = self;
        let crowd = if self.oversubscribed {
            " oversubscribed"
        } else {
            ""
        };
        let busy = |point: &Point| *s > 0 && point.callers as usize >= c + s;
        let busy = points.iter().position(busy).unwrap_or(points.len() - 1);
        let (rising, level) = points.split_at(busy + 1);
        let stuck = rising
            .windows(2)
            .find(|two| two[1].beside(&two[0]).median <= 1.0);
        let mut text = match stuck {
            None => format!(
                "throughput C={c} S={s}{crowd} rises until T={}",
                points[busy].callers
            ),
            Some(two) => {
                let (from, to) = (two[0].callers, two[1].callers);
                format!("throughput C={c} S={s}{crowd} does NOT rise from T={from} to T={to}")
            }
        };
        let mut best = &points[busy];
        // The deepest fall.
        let mut least: Option<(Spread, u32, u32)> = None;
        for point in level {
            let beside = point.beside(best);
            if least.is_none_or(|(least, ..)| beside.median < least.median) {
                least = Some((beside, point.callers, best.callers));
            }
            if beside.median > 1.0 {
                best = point;
            }
        }
        if let Some((Spread { median, low, high }, t, before)) = least {
            let falls = if high < 1.0 {
                "FALLS"
            } else if median < LEVEL {
                "falls in most rounds"
            } else {
                "does not fall"
            };
            text += &format!(
                ", and {falls} after; least at T={t}, {median:.2} ({low:.2}-{high:.2}) of T={before}"
            );
        }
        text
    }
}
