//! How requests are written and answers read: the older form, without tagged fields, in versions that Kafka 3 and
//! Kafka 4 both have.

use std::io;

/// A request in the making.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn i8(self, value: i8) -> Self {
        self.raw(&value.to_be_bytes())
    }

    pub(super) fn i16(self, value: i16) -> Self {
        self.raw(&value.to_be_bytes())
    }

    pub(super) fn i32(self, value: i32) -> Self {
        self.raw(&value.to_be_bytes())
    }

    pub(super) fn bool(self, value: bool) -> Self {
        self.i8(value.into())
    }

    /// A text; what is longer than the protocol can say is cut, so that no length ever lies.
    pub(super) fn text(self, text: &str) -> Self {
        let end = (0..=text.len().min(i16::MAX as usize)).rev().find(|at| text.is_char_boundary(*at));
        let text = &text[..end.unwrap_or(0)];
        self.i16(text.len() as i16).raw(text.as_bytes())
    }

    pub(super) fn bytes(self, bytes: &[u8]) -> Self {
        self.i32(bytes.len() as i32).raw(bytes)
    }

    pub(super) fn list<T>(self, items: &[T], each: impl FnMut(Self, &T) -> Self) -> Self {
        let count = self.i32(items.len() as i32);
        items.iter().fold(count, each)
    }

    pub(super) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// An answer, read from its start; every read beyond its end is an error.
#[derive(Debug)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(answer: &'a [u8]) -> Self {
        Self(answer)
    }

    pub(super) fn i16(&mut self) -> io::Result<i16> {
        self.fixed().map(i16::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> io::Result<i32> {
        self.fixed().map(i32::from_be_bytes)
    }

    pub(super) fn bool(&mut self) -> io::Result<bool> {
        self.fixed::<1>().map(|[value]| value != 0)
    }

    /// A text; the one that is not there is an empty one.
    pub(super) fn text(&mut self) -> io::Result<String> {
        let length = usize::try_from(self.i16()?).unwrap_or(0);
        self.take(length).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    pub(super) fn bytes(&mut self) -> io::Result<&'a [u8]> {
        let length = usize::try_from(self.i32()?).unwrap_or(0);
        self.take(length)
    }

    pub(super) fn list<T>(&mut self, mut each: impl FnMut(&mut Self) -> io::Result<T>) -> io::Result<Vec<T>> {
        let count = usize::try_from(self.i32()?).unwrap_or(0);
        // Every item has at least a byte, so a count that lies is noticed before it costs anything.
        if count > self.0.len() {
            return Err(too_short());
        }
        (0..count).map(|_| each(self)).collect()
    }

    fn fixed<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        self.take(N).map(|bytes| bytes.try_into().expect("as many as were asked for"))
    }

    fn take(&mut self, count: usize) -> io::Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(too_short)?;
        self.0 = rest;
        Ok(taken)
    }
}

fn too_short() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the answer is shorter than it says")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back() {
        let bytes = Writer::default()
            .i16(-1)
            .i32(7)
            .bool(true)
            .text("töpic")
            .list(&["a", "b"], |writer, item| writer.text(item))
            .bytes(b"xyz")
            .into_bytes();
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.i16().unwrap(), -1);
        assert_eq!(reader.i32().unwrap(), 7);
        assert!(reader.bool().unwrap());
        assert_eq!(reader.text().unwrap(), "töpic");
        assert_eq!(reader.list(Reader::text).unwrap(), ["a", "b"]);
        assert_eq!(reader.bytes().unwrap(), b"xyz");
        reader.bool().unwrap_err();
    }

    #[test]
    fn lengths_that_lie_are_refused_before_they_cost_anything() {
        Reader::new(&[0x7f, 0xff, b'a']).text().unwrap_err();
        Reader::new(&[0x7f, 0xff, 0xff, 0xff, 0]).list(Reader::bool).unwrap_err();
        Reader::new(&[0x7f, 0xff, 0xff, 0xff, 0]).bytes().unwrap_err();
        Reader::new(&[]).i32().unwrap_err();
    }

    #[test]
    fn what_is_not_there_is_empty() {
        assert_eq!(Reader::new(&[0xff, 0xff]).text().unwrap(), "");
        assert!(Reader::new(&[0xff; 4]).list(Reader::bool).unwrap().is_empty());
    }

    #[test]
    fn a_text_that_is_too_long_is_cut_between_characters() {
        let bytes = Writer::default().text(&"ö".repeat(40_000)).into_bytes();
        assert_eq!(Reader::new(&bytes).text().unwrap().len(), 32_766);
    }
}
