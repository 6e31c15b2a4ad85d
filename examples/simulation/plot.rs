//! The results as one picture: four panels, one line for each policy.

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::contenders;
use crate::report::Results;
use crate::scenarios::Kind;
use crate::tally::Tally;

const SIZE: (u32, u32) = (1200, 960);

/// Blue, sky, violet, orange, green, red: told apart by most eyes, also in grey.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 90, 160),
    RGBColor(86, 180, 233),
    RGBColor(120, 80, 170),
    RGBColor(230, 140, 0),
    RGBColor(0, 140, 100),
    RGBColor(190, 40, 60),
];

type Drawing<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Outcome = Result<(), Box<dyn std::error::Error>>;

/// One panel.
struct Panel {
    title: &'static str,
    /// Which scenarios: their kind, and what their names begin with.
    kind: Kind,
    of: &'static str,
    x: &'static str,
    y: &'static str,
    value: fn(&Tally) -> f64,
    /// The scale of the y axis goes by factors.
    factors: bool,
    /// The one for all panels is here.
    legend: bool,
}

const PANELS: [Panel; 4] = [
    Panel {
        title: "1,000 address spaces, single calls",
        kind: Kind::Singles,
        of: "",
        x: "load, % of 64 CPUs",
        y: "99 of 100 calls take at most, µs",
        value: |tally| tally.quantile_us(0.99),
        factors: true,
        legend: true,
    },
    Panel {
        title: "1,000 address spaces, bursts of up to 8 calls",
        kind: Kind::Bursts,
        of: "",
        x: "load, % of 64 CPUs",
        y: "99 of 100 calls take at most, µs",
        value: |tally| tally.quantile_us(0.99),
        factors: true,
        legend: false,
    },
    Panel {
        title: "1,000 address spaces, single calls: processors wasted",
        kind: Kind::Singles,
        of: "",
        x: "load, % of 64 CPUs",
        y: "idle while work waits, % of CPU time",
        value: Tally::wasted_share,
        factors: false,
        legend: false,
    },
    Panel {
        title: "One client, a server without processors, 2 CPUs",
        kind: Kind::Pair,
        of: "S=0, 2 CPUs,",
        x: "callers",
        y: "time per call, µs",
        value: |tally| 1e3 / tally.rate(),
        factors: true,
        legend: false,
    },
];

/// The picture as SVG.
pub(crate) fn svg(results: &Results<'_>) -> Result<String, Box<dyn std::error::Error>> {
    let mut out = String::new();
    {
        let root = SVGBackend::with_string(&mut out, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let root = root.margin(8, 8, 8, 8);
        for (panel, area) in PANELS.iter().zip(root.split_evenly((2, 2))) {
            draw(panel, &area, results)?;
        }
        root.present()?;
    }
    Ok(out)
}

fn draw(panel: &Panel, area: &Drawing<'_>, results: &Results<'_>) -> Outcome {
    let shown: Vec<_> = results
        .iter()
        .filter(|(scenario, _)| scenario.kind == panel.kind && scenario.name.starts_with(panel.of))
        .collect();
    let percent = if panel.kind == Kind::Pair { 1.0 } else { 100.0 };
    let lines: Vec<Vec<(f64, f64)>> = (0..contenders::ALL.len())
        .map(|i| {
            let point = |(scenario, tallies): &&(&crate::scenarios::Scenario, Vec<Tally>)| {
                (scenario.x * percent, (panel.value)(&tallies[i]).max(1e-3))
            };
            shown.iter().map(point).collect()
        })
        .collect();
    let values = || lines.iter().flatten().map(|&(_, y)| y);
    let top = values().fold(0.0, f64::max);
    let bottom = values().fold(f64::INFINITY, f64::min);
    let mut chart = ChartBuilder::on(area);
    chart
        .caption(panel.title, ("sans-serif", 19))
        .margin(12)
        .x_label_area_size(46)
        .y_label_area_size(72);
    // The axis of the callers goes by factors, too; each combination is a type of its own.
    match (panel.factors, panel.kind) {
        (true, Kind::Pair) => {
            let x = (1.0..64.0).log_scale().base(2.0);
            let mut chart = chart.build_cartesian_2d(x, (bottom * 0.8..top * 1.25).log_scale())?;
            finish!(chart, panel, lines);
        }
        (true, _) => {
            let mut chart =
                chart.build_cartesian_2d(0.0..100.0, (bottom * 0.8..top * 1.25).log_scale())?;
            finish!(chart, panel, lines);
        }
        (false, _) => {
            let mut chart = chart.build_cartesian_2d(0.0..100.0, 0.0..top * 1.1)?;
            finish!(chart, panel, lines);
        }
    }
    Ok(())
}

/// Axes, lines, points and the legend.
macro_rules! finish {
    ($chart:ident, $panel:ident, $lines:ident) => {{
        $chart
            .configure_mesh()
            .x_desc($panel.x)
            .y_desc($panel.y)
            .label_style(("sans-serif", 14))
            .axis_desc_style(("sans-serif", 15))
            .light_line_style(WHITE.mix(0.0))
            .x_label_formatter(&|x| format!("{x:.0}"))
            .y_labels(6)
            .y_label_formatter(&|y| label(*y))
            .draw()?;
        for ((contender, colour), line) in contenders::ALL.iter().zip(COLOURS).zip(&$lines) {
            let style = colour.stroke_width(2);
            $chart
                .draw_series(LineSeries::new(line.iter().copied(), style))?
                .label(contender.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], style));
            $chart.draw_series(line.iter().map(|&at| Circle::new(at, 3, colour.filled())))?;
        }
        if $panel.legend {
            $chart
                .configure_series_labels()
                .position(SeriesLabelPosition::UpperLeft)
                .background_style(WHITE.mix(0.85))
                .border_style(BLACK.mix(0.3))
                .label_font(("sans-serif", 14))
                .draw()?;
        }
    }};
}
use finish;

fn label(y: f64) -> String {
    if y >= 10.0 || y == 0.0 {
        format!("{y:.0}")
    } else {
        format!("{y}")
    }
}
