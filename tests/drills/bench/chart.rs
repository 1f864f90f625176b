//! Bars as SVG: what the service does beside pgbench, for each kind of work.

use std::fmt::Write;

/// Two bars, of the service and of pgbench, for one kind of work.
#[derive(Debug)]
pub struct Pair {
    /// The work.
    pub name: &'static str,
    /// What the service does, per second.
    pub service: f64,
    /// What pgbench does with the same statements, per second.
    pub pgbench: f64,
}

const WIDTH: f64 = 760.0;
const LEFT: f64 = 90.0;
const TOP: f64 = 50.0;
/// The longest bar.
const LONGEST: f64 = 520.0;
const THICK: f64 = 20.0;
const GAP: f64 = 24.0;
/// Colours that the colour-blind tell apart (Okabe and Ito).
const SERVICE: &str = "#0072b2";
const PGBENCH: &str = "#d55e00";

/// The picture. Each pair has a scale of its own: reads are many times as fast as payments.
#[must_use]
pub fn to_svg(pairs: &[Pair]) -> String {
    let count = f64::from(u32::try_from(pairs.len()).unwrap_or(0));
    let height = TOP + count * (2.0 * THICK + GAP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"15\">Per second: the service, and pgbench with the same statements</text>\n"
    );
    let mut y = TOP;
    for Pair { name, service, pgbench } in pairs {
        let most = service.max(*pgbench).max(1.0);
        // writing to a string cannot fail
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>",
            LEFT - 8.0,
            y + THICK + 4.0
        );
        let share = service / pgbench.max(1.0);
        for (rate, colour, label) in [
            (*service, SERVICE, format!("{service:.0}, {share:.2} of pgbench")),
            (*pgbench, PGBENCH, format!("{pgbench:.0}, pgbench")),
        ] {
            let long = rate / most * LONGEST;
            let _ = writeln!(
                svg,
                "<rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{long:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>\n\
                 <text x=\"{:.1}\" y=\"{:.1}\">{label}</text>",
                THICK - 2.0,
                LEFT + long + 6.0,
                y + THICK - 6.0
            );
            y += THICK;
        }
        y += GAP;
    }
    svg.push_str("</svg>\n");
    svg
}
