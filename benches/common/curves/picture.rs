//! Figures 3 and 4 of the paper, drawn again.
//!
//! Each picture has the paper's own as an inset, as far as the paper's text states it. The colours can be
//! told apart on light and on dark ground; what is black here takes the colour of the text around it.

use plotters::coord::Shift;
use plotters::coord::combinators::{BindKeyPoints, WithKeyPoints};
use plotters::prelude::*;

use super::super::report::median;
use super::{Curve, Spread};

/// What stands below each picture.
pub const CAPTION: &str = "Points are medians, bars reach from the least round to the greatest. Dashed lines with open \
    circles are oversubscribed: fewer CPUs than processors. The inset has the points that the paper's text states, read \
    off there, and dashed what follows from its words: that throughput stays level from T = C + S on.";

const SIZE: (u32, u32) = (980, 540);
/// Where the legend and the inset begin, and what the legend takes of that.
const SIDE: u32 = 660;
const LEGEND: u32 = 230;
/// Pixels from one line of the legend to the next.
const LINE: i32 = 22;

/// Pixels of a dash, and of the gap after it.
const DASH: (u32, u32) = (7, 4);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;
/// C and S.
type Processors = (usize, usize);

/// One chart: what it says, and its lines.
struct Chart {
    title: String,
    y: &'static str,
    lines: Vec<Line>,
}

struct Line {
    of: Processors,
    /// For what the paper implies, and for what is oversubscribed.
    dashed: bool,
    /// Callers, and the value.
    points: Vec<(f64, Spread)>,
}

impl Line {
    fn point(&self) -> ShapeStyle {
        let colour = colour(self.of);
        if self.dashed {
            colour.stroke_width(2)
        } else {
            colour.filled()
        }
    }
}

/// A figure of the paper, as far as its text has it.
struct Paper {
    title: &'static str,
    y: &'static str,
    /// Callers and value, as stated.
    stated: [(Processors, &'static [(f64, f64)]); 2],
    /// Where throughput is level.
    implied: [(Processors, &'static [(f64, f64)]); 2],
}

const FIGURE_3: Paper = Paper {
    title: "The paper's Figure 3 (Firefly, 1991)",
    y: "latency, µs",
    stated: [
        ((1, 0), &[(1.0, 375.0)]),
        ((1, 1), &[(1.0, 93.0), (2.0, 112.0)]),
    ],
    implied: [
        ((1, 1), &[(2.0, 2e6 / 17_850.0), (8.0, 8e6 / 17_850.0)]),
        ((2, 2), &[(4.0, 4e6 / 23_800.0), (8.0, 8e6 / 23_800.0)]),
    ],
};

const FIGURE_4: Paper = Paper {
    title: "The paper's Figure 4 (Firefly, 1991)",
    y: "thousand calls/s",
    stated: [
        ((1, 0), &[(1.0, 1e3 / 375.0)]),
        ((1, 1), &[(1.0, 10.3), (2.0, 17.85)]),
    ],
    implied: [
        ((1, 1), &[(2.0, 17.85), (8.0, 17.85)]),
        ((2, 2), &[(4.0, 23.8), (8.0, 23.8)]),
    ],
};

/// Nanoseconds of a raw round trip, beside all that was measured.
fn raw(curves: &[Curve]) -> f64 {
    let points = curves.iter().flat_map(|curve| &curve.points);
    let rates = points.flat_map(|point| &point.rates);
    median(rates.map(|rate| 1e9 / rate.base))
}

/// Figure 3.
pub fn latency(curves: &[Curve]) -> String {
    let raw = raw(curves);
    let value = |callers: f64, rate: Spread| {
        let micros = |rate: f64| callers * 1e6 / rate;
        Spread {
            median: micros(rate.median),
            low: micros(rate.high),
            high: micros(rate.low),
        }
    };
    let chart = chart("Latency of a null call", "latency, µs", curves, value);
    let raw = (raw / 1e3, format!("raw: {:.2} µs", raw / 1e3));
    picture(&chart, raw, &FIGURE_3)
}

/// Figure 4.
pub fn throughput(curves: &[Curve]) -> String {
    let raw = raw(curves);
    let millions = |rate: f64| rate / 1e6;
    let value = |_: f64, rate: Spread| Spread {
        median: millions(rate.median),
        low: millions(rate.low),
        high: millions(rate.high),
    };
    let chart = chart("Throughput of null calls", "million calls/s", curves, value);
    let raw = (
        1e3 / raw,
        format!("raw: {:.1} million round trips/s", 1e3 / raw),
    );
    picture(&chart, raw, &FIGURE_4)
}

fn chart(
    title: &str,
    y: &'static str,
    curves: &[Curve],
    value: impl Fn(f64, Spread) -> Spread,
) -> Chart {
    let line = |curve: &Curve| {
        let point = |point: &super::Point| {
            let callers = f64::from(point.callers);
            (callers, value(callers, point.rate()))
        };
        Line {
            of: (curve.c, curve.s),
            dashed: curve.oversubscribed,
            points: curve.points.iter().map(point).collect(),
        }
    };
    Chart {
        title: title.to_owned(),
        y,
        lines: curves.iter().map(line).collect(),
    }
}

impl Paper {
    fn chart(&self) -> Chart {
        let exactly = |&(t, value): &(f64, f64)| {
            (
                t,
                Spread {
                    median: value,
                    low: value,
                    high: value,
                },
            )
        };
        let lines = |lines: &[(Processors, &[(f64, f64)])], dashed| {
            let line = |&(of, points): &(Processors, &[_])| Line {
                of,
                dashed,
                points: points.iter().map(exactly).collect(),
            };
            lines.iter().map(line).collect::<Vec<_>>()
        };
        let mut all = lines(&self.stated, false);
        all.extend(lines(&self.implied, true));
        Chart {
            title: self.title.to_owned(),
            y: self.y,
            lines: all,
        }
    }
}

/// The chart with raw's line in it, and beside it the legend and the paper's.
fn picture(chart: &Chart, raw: (f64, String), paper: &Paper) -> String {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let (main, side) = root.split_horizontally(SIDE);
        let (top, inset) = side.split_vertically(LEGEND);
        let drawn = draw(&main, chart, Some(raw.0), 15)
            .and_then(|()| legend(&top, chart, &raw.1))
            .and_then(|()| draw(&inset, &paper.chart(), None, 12))
            .and_then(|()| root.present());
        drawn.expect("a string takes all");
    }
    svg.replace("#000000", "currentColor")
}

fn draw(area: &Area<'_>, chart: &Chart, raw: Option<f64>, font: u32) -> Drawn {
    let points = || chart.lines.iter().flat_map(|line| &line.points);
    let most = points().map(|point| point.0).fold(1.0, f64::max);
    let low = points()
        .map(|point| point.1.low)
        .chain(raw)
        .fold(f64::INFINITY, f64::min);
    let high = points()
        .map(|point| point.1.high)
        .chain(raw)
        .fold(0.0, f64::max);
    let callers = (0..)
        .map(|i| f64::from(1 << i))
        .take_while(|&t| t <= most)
        .collect();
    let (x, y) = (
        axis(0.85, most * 1.2, callers),
        axis(low * 0.8, high * 1.25, ticks(low * 0.8, high * 1.25)),
    );
    let mut context = ChartBuilder::on(area)
        .caption(&chart.title, ("sans-serif", font + 3))
        .margin(10)
        .x_label_area_size(font * 3)
        .y_label_area_size(font * 4)
        .build_cartesian_2d(x, y)?;
    context
        .configure_mesh()
        .x_desc("callers at a time, T")
        .y_desc(chart.y)
        .label_style(("sans-serif", font))
        .axis_desc_style(("sans-serif", font))
        .bold_line_style(BLACK.mix(0.15))
        .x_label_formatter(&|&t| format!("{t:.0}"))
        .y_label_formatter(&|&value| format!("{value}"))
        .draw()?;
    if let Some(raw) = raw {
        let ends = [(0.85, raw), (most * 1.2, raw)];
        context.draw_series(DashedLineSeries::new(ends, 2, 4, BLACK.stroke_width(2)))?;
    }
    for (i, line) in chart.lines.iter().enumerate() {
        let colour = colour(line.of);
        let style = colour.stroke_width(2);
        let middle = line.points.iter().map(|&(t, value)| (t, value.median));
        if line.dashed {
            context.draw_series(DashedLineSeries::new(middle.clone(), DASH.0, DASH.1, style))?;
        } else {
            context.draw_series(LineSeries::new(middle.clone(), style))?;
        }
        let bar = |&(t, value): &(f64, Spread)| {
            PathElement::new([(t, value.low), (t, value.high)], colour)
        };
        context.draw_series(line.points.iter().map(bar))?;
        // What the paper only implies has no points.
        if raw.is_some() || !line.dashed {
            let style = line.point();
            context.draw_series(middle.map(|at| Circle::new(at, radius(i), style)))?;
        }
    }
    Ok(())
}

/// What the lines stand for.
fn legend(area: &Area<'_>, chart: &Chart, raw: &str) -> Drawn {
    let font = ("sans-serif", 15).into_text_style(area);
    let at = |i: usize| 50 + LINE * i as i32;
    for (i, line) in chart.lines.iter().enumerate() {
        let (y, colour) = (at(i), colour(line.of));
        let dashes = if line.dashed {
            vec![(10, 20), (26, 36)]
        } else {
            vec![(10, 36)]
        };
        for (from, to) in dashes {
            area.draw(&PathElement::new(
                [(from, y), (to, y)],
                colour.stroke_width(2),
            ))?;
        }
        area.draw(&Circle::new((23, y), radius(i), line.point()))?;
        let (c, s) = line.of;
        let crowd = if line.dashed { " (oversubscribed)" } else { "" };
        area.draw_text(&format!("C={c} S={s}{crowd}"), &font, (46, y - 6))?;
    }
    let y = at(chart.lines.len());
    for from in [10, 16, 22, 28, 34] {
        area.draw(&PathElement::new(
            [(from, y), (from + 2, y)],
            BLACK.stroke_width(2),
        ))?;
    }
    area.draw_text(raw, &font, (46, y - 6))
}

/// Of points: a line that lies beneath another one is seen, too.
fn radius(line: usize) -> i32 {
    7 - line.min(4) as i32
}

/// Told apart by most eyes, and visible on white and on black.
fn colour(of: Processors) -> RGBColor {
    match of {
        (1, 0) => RGBColor(213, 94, 0),
        (1, 1) => RGBColor(47, 127, 208),
        (2, 0) => RGBColor(190, 140, 10),
        (2, 1) => RGBColor(181, 101, 181),
        _ => RGBColor(29, 158, 116),
    }
}

/// An axis that goes by factors.
fn axis(low: f64, high: f64, ticks: Vec<f64>) -> WithKeyPoints<LogCoord<f64>> {
    (low..high).log_scale().with_key_points(ticks)
}

/// 1, 2, 5, 10 and so on.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let decades = low.log10().floor() as i32..=high.log10().ceil() as i32;
    let ticks = decades.flat_map(|decade| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(decade)));
    ticks.filter(|tick| (low..high).contains(tick)).collect()
}
