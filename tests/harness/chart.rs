//! Lines as SVG, for the documents.

use std::fmt::Write;

/// How far up a value goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Twice as much is twice as high, from 0.
    Linear,
    /// From milliseconds to minutes in one picture.
    Logarithmic,
}

/// A chart.
#[derive(Debug)]
pub struct Chart<'a> {
    /// What it shows.
    pub title: &'a str,
    /// What goes to the right.
    pub x: &'a str,
    /// What goes up.
    pub y: &'a str,
    /// How.
    pub scale: Scale,
    /// From which to which x something happened, and what.
    pub span: Option<(f64, f64, &'a str)>,
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

/// The lines of the y axis.
struct Axis {
    bottom: f64,
    top: f64,
    step: f64,
    scale: Scale,
}

impl Axis {
    fn of(scale: Scale, points: impl Iterator<Item = (f64, f64)> + Clone) -> Self {
        let highest = points.clone().map(|(_, y)| y).fold(1e-9, f64::max);
        match scale {
            Scale::Linear => {
                // 1, 2 or 5 of a power of ten, so that there are four to ten lines
                let decade = 10_f64.powf(highest.log10().floor());
                let step = match highest / decade {
                    ..2.0 => decade / 5.0,
                    ..5.0 => decade / 2.0,
                    _ => decade,
                };
                Self { bottom: 0.0, top: (highest / step).ceil() * step, step, scale }
            }
            Scale::Logarithmic => {
                let lowest = points.map(|(_, y)| y.max(1e-9)).fold(1.0, f64::min);
                let bottom = lowest.log10().floor();
                Self { bottom, top: highest.log10().ceil().max(bottom + 1.0), step: 1.0, scale }
            }
        }
    }

    /// From 0 at the bottom to 1 at the top.
    fn place(&self, value: f64) -> f64 {
        let value = match self.scale {
            Scale::Linear => value,
            Scale::Logarithmic => value.max(1e-9).log10(),
        };
        (value - self.bottom) / (self.top - self.bottom)
    }

    /// The values that have a line.
    fn values(&self) -> impl Iterator<Item = f64> {
        let steps = (0..32).map(|step| self.bottom + self.step * f64::from(step));
        steps.take_while(|at| *at <= self.top + self.step / 2.0).map(|at| match self.scale {
            Scale::Linear => at,
            Scale::Logarithmic => 10_f64.powf(at),
        })
    }
}

impl Chart<'_> {
    /// The picture.
    #[must_use]
    pub fn to_svg(&self) -> String {
        Self::stack(std::slice::from_ref(self))
    }

    /// Several in one picture, one below the other.
    #[must_use]
    pub fn stack(charts: &[Self]) -> String {
        let heights = charts.iter().scan(0.0, |next, _| {
            *next += HEIGHT;
            Some(*next)
        });
        let height = heights.clone().last().unwrap_or(0.0);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
             font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        );
        for (chart, end) in charts.iter().zip(heights) {
            let _ = writeln!(svg, "<g transform=\"translate(0,{})\">", end - HEIGHT);
            chart.draw(&mut svg);
            svg.push_str("</g>\n");
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn draw(&self, svg: &mut String) {
        let points = self.lines.iter().flat_map(|(_, points)| points.iter().copied());
        let right = points.clone().map(|(x, _)| x).fold(1.0, f64::max);
        let axis = Axis::of(self.scale, points);
        let at_x = |x: f64| LEFT + x / right * (WIDTH - LEFT - RIGHT);
        let at_y = |y: f64| HEIGHT - BOTTOM - axis.place(y) * (HEIGHT - TOP - BOTTOM);
        let plot_bottom = HEIGHT - BOTTOM;

        let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"22\" font-size=\"15\">{}</text>", self.title);
        if let Some((from, to, what)) = self.span {
            let _ = writeln!(
                svg,
                "<rect x=\"{:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"#eeeeee\"/>\n\
                 <text x=\"{:.1}\" y=\"{:.1}\" fill=\"#666666\">{what}</text>",
                at_x(from),
                at_x(to) - at_x(from),
                plot_bottom - TOP,
                at_x(from) + 4.0,
                TOP + 14.0
            );
        }
        for value in axis.values() {
            let y = at_y(value);
            let _ = writeln!(
                svg,
                "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\" stroke=\"#cccccc\"/>\n\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                y + 4.0
            );
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
    }
}
