//! Queries of requests.

/// A query's names and values, decoded, in order. Bytes that are no UTF-8 are replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads what follows `?` of a path.
    pub fn read(text: &str) -> Self {
        Self(form_urlencoded::parse(text.as_bytes()).into_owned().collect())
    }

    /// The query of a request.
    pub fn of(uri: &http::Uri) -> Self {
        Self::read(uri.query().unwrap_or_default())
    }

    /// The first value of a name.
    pub fn first(&self, name: &str) -> Option<&str> {
        self.pairs().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// All values of a name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs().filter(move |(key, _)| *key == name).map(|(_, value)| value)
    }

    /// A truth value as Kubernetes reads them: set to anything but `false` and `0`.
    pub fn is_set(&self, name: &str) -> bool {
        self.first(name).is_some_and(|value| !value.eq_ignore_ascii_case("false") && value != "0")
    }

    /// Names and values in their order.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// A path with a query of these names and values, without `?` where there are none.
pub fn with_query<'a>(path: &str, pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded_in_order() {
        let query =
            Query::read("command=sh&command=-c&command=echo+a%26b&output=1&tty=false&error=0&follow&&x=%ff");
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["sh", "-c", "echo a&b"]);
        assert!(query.is_set("output") && query.is_set("follow"));
        assert!(!query.is_set("tty") && !query.is_set("error") && !query.is_set("input"));
        assert_eq!(
            (query.first("follow"), query.first("x"), query.first("y")),
            (Some(""), Some("\u{fffd}"), None)
        );
    }

    #[test]
    fn a_query_is_written_as_it_is_read() {
        let pairs = [("command", "echo a&b=ü"), ("command", "+"), ("tty", "")];
        let path = with_query("/exec", pairs);
        assert_eq!(path, "/exec?command=echo+a%26b%3D%C3%BC&command=%2B&tty=");
        let read = Query::of(&path.parse().unwrap());
        assert!(read.pairs().eq(pairs));
        assert_eq!(with_query("/exec", []), "/exec");
    }
}
