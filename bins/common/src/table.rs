//! Two columns for people: a name in bold, what there is to say of it.

use std::{
    fmt,
    io::{self, IsTerminal, Write},
};

/// A table of names and values.
#[derive(Clone, Debug, Default)]
pub struct Table(Vec<(String, String)>);

impl Table {
    /// Adds a row.
    #[must_use]
    pub fn row(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.0.push((name.to_owned(), value.to_string()));
        self
    }

    /// Prints it on stdout, names in bold where a person looks.
    pub fn print(&self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let bold = out.is_terminal();
        out.write_all(self.text(bold).as_bytes())?;
        out.flush()
    }

    fn text(&self, bold: bool) -> String {
        let width = self.0.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
        let (on, off) = if bold { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        let rows = self.0.iter().map(|(name, value)| format!("  {on}{name:<width$}{off}  {value}\n"));
        rows.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_in_one_column() {
        let table = Table::default().row("node", "edge-1").row("kubeconfig", "/x");
        assert_eq!(table.text(false), "  node        edge-1\n  kubeconfig  /x\n");
        assert_eq!(Table::default().row("a", 1).text(true), "  \x1b[1ma\x1b[0m  1\n");
    }
}
