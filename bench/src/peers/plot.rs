//! Bars of CPU time per request, one panel per case, each on its own scale.

use std::fmt::Write as _;

use super::report::Row;

const WIDTH: usize = 760;
const LABELS: usize = 110;
const BAR: usize = 18;
const GAP: usize = 6;
const TITLE: usize = 26;
/// Ours stands out; the others share one colour.
const OURS: &str = "#d9480f";
const OTHERS: &str = "#868e96";

/// The plot as SVG.
pub(crate) fn bars(rows: &[Row]) -> String {
    let mut panels = String::new();
    let mut y = 40;
    let mut rest = rows;
    while let Some(first) = rest.first() {
        let count = rest.iter().take_while(|row| row.case == first.case).count();
        let (case, others) = rest.split_at(count);
        rest = others;
        y = panel(&mut panels, case, y);
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{y}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"10\" y=\"22\" font-size=\"15\" font-weight=\"bold\">CPU time per request in µs, shorter is better</text>\n{panels}</svg>\n"
    )
}

/// Draws one case from `y` on and returns where the next begins.
fn panel(into: &mut String, rows: &[Row], mut y: usize) -> usize {
    let Some(first) = rows.first() else { return y };
    let most = rows
        .iter()
        .filter_map(|row| Some(row.figures()?.cpu_us_per_request))
        .fold(f64::MIN_POSITIVE, f64::max);
    y += TITLE;
    let _ = writeln!(
        into,
        "<text x=\"10\" y=\"{}\" font-weight=\"bold\">{}</text>",
        y - GAP,
        first.case
    );
    for row in rows {
        let middle = y + BAR - GAP + 1;
        let _ = writeln!(into, "<text x=\"10\" y=\"{middle}\">{}</text>", row.server);
        if let Some(figures) = row.figures() {
            let room = (WIDTH - LABELS - 90) as f64;
            let length = room * figures.cpu_us_per_request / most;
            let colour = if row.server == "helix-edge" {
                OURS
            } else {
                OTHERS
            };
            let _ = writeln!(
                into,
                "<rect x=\"{LABELS}\" y=\"{y}\" width=\"{length:.1}\" height=\"{BAR}\" fill=\"{colour}\"/>\
                 <text x=\"{:.1}\" y=\"{middle}\">{:.2}</text>",
                LABELS as f64 + length + 6.0,
                figures.cpu_us_per_request,
            );
        } else {
            let _ = writeln!(
                into,
                "<text x=\"{LABELS}\" y=\"{middle}\" fill=\"{OTHERS}\">unsupported</text>"
            );
        }
        y += BAR + GAP;
    }
    y
}
