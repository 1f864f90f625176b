//! Lines over time as SVG, for the documents.

use std::fmt::Write;

/// A chart whose y axis is logarithmic: from milliseconds to minutes in one picture.
#[derive(Debug)]
pub struct Chart<'a> {
    /// What it shows.
    pub title: &'a str,
    /// What goes to the right.
    pub x: &'a str,
    /// What goes up.
    pub y: &'a str,
    /// From which to which x something happened, and what.
    pub span: (f64, f64, &'a str),
    /// Names and points.
    pub lines: Vec<(&'a str, Vec<(f64, f64)>)>,
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 60.0;
const BOTTOM: f64 = 50.0;
/// Colours that the colour-blind tell apart (Okabe and Ito).
const COLOURS: [&str; 4] = ["#d55e00", "#0072b2", "#009e73", "#cc79a7"];

impl Chart<'_> {
    /// The picture.
    #[must_use]
    pub fn to_svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|(_, points)| points.iter().copied());
        let right = points().map(|(x, _)| x).fold(1.0, f64::max);
        let decades = |value: f64| value.max(1e-9).log10();
        let bottom = points().map(|(_, y)| decades(y)).fold(f64::MAX, f64::min).min(0.0).floor();
        let top = points().map(|(_, y)| decades(y)).fold(f64::MIN, f64::max).max(bottom + 1.0).ceil();
        let at_x = |x: f64| LEFT + x / right * (WIDTH - LEFT - RIGHT);
        let at_y =
            |y: f64| HEIGHT - BOTTOM - (decades(y) - bottom) / (top - bottom) * (HEIGHT - TOP - BOTTOM);

        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
             font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
             <text x=\"{LEFT}\" y=\"22\" font-size=\"15\">{}</text>\n",
            self.title
        );
        let (from, to, what) = self.span;
        let (plot_bottom, width) = (HEIGHT - BOTTOM, at_x(to) - at_x(from));
        let _ = writeln!(
            svg,
            "<rect x=\"{:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"#eeeeee\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" fill=\"#666666\">{what}</text>",
            at_x(from),
            plot_bottom - TOP,
            at_x(from) + 4.0,
            TOP + 14.0
        );
        let mut decade = bottom;
        while decade <= top {
            let (y, value) = (at_y(10_f64.powf(decade)), 10_f64.powf(decade));
            let _ = writeln!(
                svg,
                "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\" stroke=\"#cccccc\"/>\n\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                y + 4.0
            );
            decade += 1.0;
        }
        for tick in 0..=10 {
            let x = right / 10.0 * f64::from(tick);
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{x:.0}</text>",
                at_x(x),
                plot_bottom + 16.0
            );
        }
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n<text x=\"{LEFT}\" y=\"{:.1}\">{}</text>",
            WIDTH - RIGHT,
            HEIGHT - 12.0,
            self.x,
            TOP - 8.0,
            self.y
        );
        for (at, ((name, points), colour)) in self.lines.iter().zip(COLOURS.iter().cycle()).enumerate() {
            let path: Vec<String> =
                points.iter().map(|(x, y)| format!("{:.1},{:.1}", at_x(*x), at_y(*y))).collect();
            let legend = 240.0 * f64::from(u32::try_from(at).unwrap_or(0));
            let _ = writeln!(
                svg,
                "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>\n\
                 <text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{name}</text>",
                path.join(" "),
                LEFT + 180.0 + legend,
                TOP - 8.0
            );
        }
        svg.push_str("</svg>\n");
        svg
    }
}
