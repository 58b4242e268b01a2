//! Lists: docker's tables, one line per thing, and `--format` over them.

use serde_json::{Map, Value};

use super::Template;

/// A column: the template's name for it, and its heading.
pub(crate) type Column = (&'static str, &'static str);

/// One thing: the text of each column, by the template's name.
pub(crate) type Row = Vec<(&'static str, String)>;

/// A list of things.
pub(crate) struct Listing {
    /// The columns of the table that is shown without `--format`.
    pub(crate) columns: &'static [Column],
    /// Columns only for templates.
    pub(crate) further: &'static [Column],
    /// The things.
    pub(crate) rows: Vec<Row>,
}

impl Listing {
    /// The text, each line ended.
    ///
    /// # Errors
    /// When the template is wrong.
    pub(crate) fn render(&self, format: Option<&str>) -> anyhow::Result<String> {
        match format.map(str::trim).unwrap_or("table") {
            "" | "table" => Ok(self.table()),
            "json" => Ok(self.rows.iter().map(|row| format!("{}\n", object(row))).collect()),
            text => match text.strip_prefix("table ") {
                Some(text) => self.custom_table(&Template::parse(text.trim())?),
                None => {
                    let template = Template::parse(text)?;
                    self.rows.iter().map(|row| Ok(template.render(&object(row))? + "\n")).collect()
                }
            },
        }
    }

    fn table(&self) -> String {
        let heading = self.columns.iter().map(|(_, heading)| (*heading).to_owned()).collect();
        let cell = |row: &Row, name: &str| {
            row.iter().find(|(key, _)| *key == name).map(|(_, text)| text.clone()).unwrap_or_default()
        };
        let rows = self.rows.iter().map(|row| self.columns.iter().map(|(name, _)| cell(row, name)).collect());
        align(&std::iter::once(heading).chain(rows).collect::<Vec<Vec<String>>>())
    }

    fn custom_table(&self, template: &Template) -> anyhow::Result<String> {
        let headings: Row =
            self.columns.iter().chain(self.further).map(|(name, heading)| (*name, (*heading).to_owned())).collect();
        let lines = std::iter::once(&headings)
            .chain(&self.rows)
            .map(|row| Ok(template.render(&object(row))?.split('\t').map(str::to_owned).collect()));
        Ok(align(&lines.collect::<anyhow::Result<Vec<Vec<String>>>>()?))
    }
}

fn object(row: &Row) -> Value {
    Value::Object(row.iter().map(|(key, text)| ((*key).to_owned(), Value::from(text.clone()))).collect::<Map<_, _>>())
}

/// Cells under each other: columns at least ten wide, three spaces between, the last as it is.
pub(crate) fn align(lines: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for line in lines {
        for (i, cell) in line.iter().enumerate() {
            if widths.len() <= i {
                widths.push(10);
            }
            widths[i] = widths[i].max(cell.chars().count() + 3);
        }
    }
    let mut out = String::new();
    for line in lines {
        for (i, cell) in line.iter().enumerate() {
            out.push_str(cell);
            if i + 1 < line.len() {
                out.extend(std::iter::repeat_n(' ', widths[i] - cell.chars().count()));
            }
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing() -> Listing {
        Listing {
            columns: &[("ID", "ID"), ("Name", "NAME")],
            further: &[("Labels", "LABELS")],
            rows: vec![vec![("ID", "abcdefghijkl".into()), ("Name", "web".into()), ("Labels", "a=b".into())]],
        }
    }

    #[test]
    fn formats() {
        let listing = listing();
        assert_eq!(listing.render(None).unwrap(), "ID             NAME\nabcdefghijkl   web\n");
        assert_eq!(listing.render(Some("{{.Name}}")).unwrap(), "web\n");
        assert_eq!(
            listing.render(Some("json")).unwrap(),
            "{\"ID\":\"abcdefghijkl\",\"Labels\":\"a=b\",\"Name\":\"web\"}\n"
        );
        assert_eq!(listing.render(Some("table {{.Name}}\\t{{.Labels}}")).unwrap(), "NAME      LABELS\nweb       a=b\n");
    }
}
