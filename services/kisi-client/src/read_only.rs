//! A dry run: reads go through, writes are told and kept back.

/// Around any Kisi: what it would change is told to `tell`, and nothing is sent.
pub struct ReadOnly<W> {
    inner: W,
    tell: Box<dyn Fn(&str) + Send + Sync>,
}

impl<W> ReadOnly<W> {
    /// Each write is told as one line of ids and field names, without personal data.
    pub fn new(inner: W, tell: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self {
            inner,
            tell: Box::new(tell),
        }
    }
}
