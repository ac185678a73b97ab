//! The beginning and the end of a text of any length.

/// How much of the beginning, and of the end, of a text is kept, in bytes.
const KEPT_BYTES: usize = 32 << 10;

/// Collects a text piece by piece and keeps its beginning and its end.
#[derive(Debug, Default)]
pub(crate) struct Excerpt {
    head: String,
    tail: String,
    dropped_bytes: usize,
}

impl Excerpt {
    pub(crate) fn push(&mut self, text: &str) {
        let room = KEPT_BYTES.saturating_sub(self.head.len());
        let (head, tail) = text.split_at(boundary_from(text, room));
        // Once something has gone to the tail, the head is closed, or pieces would change places.
        if self.tail.is_empty() && self.dropped_bytes == 0 {
            self.head.push_str(head);
            self.tail.push_str(tail);
        } else {
            self.tail.push_str(text);
        }
        // Twice the limit before anything moves, so that many small pieces cost no quadratic time.
        if self.tail.len() > 2 * KEPT_BYTES {
            let cut = boundary_from(&self.tail, self.tail.len() - KEPT_BYTES);
            self.tail.drain(..cut);
            self.dropped_bytes += cut;
        }
    }

    /// The text; where something was left out, a line says how much.
    pub(crate) fn finish(mut self) -> String {
        if self.dropped_bytes > 0 {
            self.head.push_str(&format!("\n[… {} bytes left out …]\n", self.dropped_bytes));
        }
        self.head + &self.tail
    }
}

/// The first end of a character at or after byte `at`.
fn boundary_from(text: &str, at: usize) -> usize {
    (at..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_texts_are_whole_however_they_come() {
        let text = "äöü".repeat(8000); // 48,000 bytes
        for size in [1, 7, 5000] {
            let mut excerpt = Excerpt::default();
            let characters: Vec<char> = text.chars().collect();
            characters.chunks(size).for_each(|piece| excerpt.push(&piece.iter().collect::<String>()));
            assert_eq!(excerpt.finish(), text);
        }
    }

    #[test]
    fn long_texts_keep_both_ends_and_say_what_is_missing() {
        let mut excerpt = Excerpt::default();
        excerpt.push("begin");
        (0..100_000).for_each(|_| excerpt.push("0123456789"));
        excerpt.push("end");
        let text = excerpt.finish();
        assert!(text.starts_with("begin0") && text.ends_with("9end"));
        assert!(text.len() < 3 * KEPT_BYTES + 100, "{}", text.len());
        assert!(text.contains("bytes left out"));
    }
}
