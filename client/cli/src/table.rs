//! Tables for people: columns as wide as what is in them.

/// Lays rows out under their headings, with two blanks between columns.
pub(crate) fn layout<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|r| r[column].chars().count());
        cells.chain([headings[column].chars().count()]).max().unwrap_or_default()
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    let headings = headings.map(str::to_owned);
    for row in [&headings].into_iter().chain(rows) {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [["soft/ä".to_owned(), "x".to_owned()], ["a".to_owned(), String::new()]];
        assert_eq!(layout(["KEY", "TYPE"], &rows), "KEY     TYPE\nsoft/ä  x\na\n");
    }
}
