//! The page with all results: one file that needs no other, readable in light and in dark.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::saved::{Row, Saved};
use super::short;

const STYLE: &str = "
:root { color-scheme: light dark; --faint: #8884; --quiet: #777; }
@media (prefers-color-scheme: dark) { :root { --quiet: #aaa; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { margin-top: 3rem; border-top: 1px solid var(--faint); padding-top: 1rem; }
.quiet, figcaption { color: var(--quiet); font-size: .9em; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; white-space: nowrap; font-variant-numeric: tabular-nums; font-size: .9em; }
th { text-align: left; position: sticky; top: 0; background: Canvas; }
th, td { padding: .15rem .7rem; border-bottom: 1px solid var(--faint); }
.number { text-align: right; }
figure { margin: 1.5rem 0; } figure svg { display: block; max-width: 100%; height: auto; }
";

pub(super) fn html(all: &[Saved]) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "urpc, measured" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "urpc, measured" }
                p {
                    "A " em { "value" } " is the median of all rounds, and the " em { "base value" } " is that "
                    "of its base in the same unit, measured just before and just after it in each round. "
                    "The " em { "ratio" } " is the median of the rounds' ratios of value to base, and "
                    em { "low–high" } " their spread: the least and the greatest of them."
                }
                p {
                    "The base " em { "raw" } " is one cache line there and one back between two processes that "
                    "spin on two CPUs, and " em { "handover" } " a futex wake and a wait there and the same back, "
                    "both processes on one CPU; a rate's base is how many of these there are in a second, so there "
                    "a higher ratio is better. "
                    "Any other base is named in its column."
                }
                ul {
                    @for saved in all {
                        li { a href={ "#" (saved.bench) } { (saved.bench) } " " span .quiet { (saved.when) } }
                    }
                }
                @for saved in all { (section(saved)) }
            }
        }
    };
    page.into_string()
}

fn section(saved: &Saved) -> Markup {
    let Saved {
        bench,
        about,
        command,
        when,
        seconds,
        machine,
        kernel,
        cpus,
        notes,
        pictures,
        rows,
    } = saved;
    let plural = if *cpus == 1 { "" } else { "s" };
    html! {
        section id=(bench) {
            h2 { (bench) }
            p { (about) }
            p .quiet {
                code { (command) } ", " (when) ", took " (seconds) " s; "
                (machine) ", " (cpus) " CPU" (plural) " allowed, Linux " (kernel)
            }
            @if !notes.is_empty() {
                ul { @for note in notes { li { (note) } } }
            }
            @for picture in pictures {
                figure {
                    (PreEscaped(&picture.svg))
                    figcaption { (picture.caption) }
                }
            }
            .wide { (table(rows)) }
        }
    }
}

fn table(rows: &[Row]) -> Markup {
    let paper = rows.iter().any(|row| row.paper.is_some());
    html! {
        table {
            thead {
                tr {
                    th { "name" } th .number { "value" } th { "unit" } th { "base" } th .number { "base value" }
                    th .number { "ratio" } th .number { "low–high" } @if paper { th .number { "paper" } }
                }
            }
            tbody {
                @for row in rows {
                    tr {
                        td { (row.name) }
                        td .number { (number(row.value, grouped)) }
                        td { (row.unit) }
                        td { (row.base) }
                        td .number { (number(row.base_value, grouped)) }
                        td .number { (number(row.ratio, ratio)) }
                        td .number { (number(row.low, ratio)) "–" (number(row.high, ratio)) }
                        @if paper { td .number { (row.paper.as_deref().unwrap_or_default()) } }
                    }
                }
            }
        }
    }
}

/// What was divided by nothing has no value.
fn number(value: Option<f64>, show: impl Fn(f64) -> String) -> String {
    value.map_or_else(String::new, show)
}

/// A ratio: small ones need more digits.
fn ratio(value: f64) -> String {
    let digits = if value < 0.1 { 4 } else { 2 };
    format!("{value:.digits$}")
}

/// With commas between the thousands.
fn grouped(value: f64) -> String {
    let text = short(value);
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let first = whole.len() % 3;
    let mut out = String::new();
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && i % 3 == first {
            out.push(',');
        }
        out.push(digit);
    }
    out + rest
}
