//! JSON documents with large arrays of plain numbers: where the arrays are, and their values.
//!
//! The result is the same as that of Python's `json` followed by numpy's conversion of integers and
//! floats to a fixed type. If this file cannot be certain of that, it returns `None`, and the
//! general parser reads the document. Knows no Python objects: `worker/convert/arrays.rs` makes the
//! numpy arrays, on the worker's thread.

#[cfg(test)]
mod tests;

use lexical_parse_float::{format::JSON, FromLexicalWithOptions as _, Options};

/// Every version of numpy allows this many dimensions.
const MAX_DIMENSIONS: usize = 32;
/// Integers with this many digits always fit into 64 bits with their sign.
const SAFE_DIGITS: usize = 18;
const OPTIONS: Options = Options::new();

/// Numbers of one type, row by row.
#[derive(Debug, PartialEq)]
pub struct Array<T> {
    /// Length of each dimension; none is 0.
    pub shape: Vec<usize>,
    /// The values; their number is the product of the shape.
    pub values: Vec<T>,
}

/// The type of an array's elements.
pub trait Number: Copy {
    /// Converts as numpy converts a Python `int`; `None` if numpy would raise an exception or warn.
    fn from_int(value: i64) -> Option<Self>;
    /// Converts as numpy converts a Python `float`; `None` if numpy would warn, or cut off digits.
    fn from_float(value: f64) -> Option<Self>;
}

impl Number for f64 {
    fn from_int(value: i64) -> Option<Self> {
        Some(value as Self)
    }

    fn from_float(value: f64) -> Option<Self> {
        Some(value)
    }
}

/// Converts through a double, because Python has no other floats. So large integers are rounded
/// twice, as with numpy.
impl Number for f32 {
    fn from_int(value: i64) -> Option<Self> {
        Self::from_float(value as f64)
    }

    fn from_float(value: f64) -> Option<Self> {
        Some(value as Self).filter(|narrow| narrow.is_finite())
    }
}

macro_rules! integer {
    ($($kind:ty)*) => {$(
        impl Number for $kind {
            fn from_int(value: i64) -> Option<Self> {
                value.try_into().ok()
            }

            fn from_float(_: f64) -> Option<Self> {
                None
            }
        }
    )*};
}

integer!(i64 i32 u8);

/// Reads a text from left to right. After a method has returned `None`, the reader must not be used
/// any more.
#[derive(Debug)]
pub struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// A reader at the beginning of the text.
    pub fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    /// How many bytes have been read.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Moves from `{`, or from the end of a value, to the value of the next member, and returns the
    /// key as it is written. Returns `Some(None)` at the end of the object.
    ///
    /// Returns `None` for a key with an escape, because that may stand for any key, and for text
    /// that is not an object with members. It does not check that the object is correct JSON.
    pub fn next_key(&mut self) -> Option<Option<&'a [u8]>> {
        let separator = if self.at == 0 { b'{' } else { b',' };
        self.skip_space();
        if separator == b',' && self.peek()? == b'}' {
            return Some(None);
        }
        self.expect(separator)?;
        self.skip_space();
        self.expect(b'"')?;
        let start = self.at;
        let length = self.text[start..].iter().position(|&byte| byte == b'"' || byte == b'\\')?;
        self.at += length;
        self.expect(b'"')?;
        self.skip_space();
        self.expect(b':')?;
        self.skip_space();
        Some(Some(&self.text[start..start + length]))
    }

    /// Moves past any value. If the text is not correct JSON, the new position has no meaning.
    pub fn skip_value(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            match self.peek()? {
                b'"' => self.skip_string()?,
                b'[' | b'{' => {
                    depth += 1;
                    self.at += 1;
                }
                b']' | b'}' if depth > 0 => {
                    depth -= 1;
                    self.at += 1;
                }
                b',' | b']' | b'}' if depth == 0 => return Some(()),
                _ => self.at += 1,
            }
        }
    }

    fn skip_string(&mut self) -> Option<()> {
        self.expect(b'"')?;
        loop {
            match self.peek()? {
                b'"' => break,
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        self.expect(b'"')
    }

    /// Reads a list of numbers, or nested lists that have the same length in each dimension.
    pub fn array<T: Number>(&mut self) -> Option<Array<T>> {
        let mut values = Vec::new();
        // How many items of each open list have been read. The outermost list is first.
        let mut open: Vec<usize> = Vec::new();
        // The length of the lists at each depth; 0 until the first list of that depth has ended.
        let mut shape: Vec<usize> = Vec::new();
        loop {
            self.skip_space();
            while self.peek()? == b'[' {
                self.at += 1;
                open.push(0);
                if values.is_empty() {
                    shape.push(0);
                }
                if open.len() > shape.len().min(MAX_DIMENSIONS) {
                    return None;
                }
                self.skip_space();
            }
            if open.len() != shape.len() || open.is_empty() {
                return None;
            }
            values.push(self.number()?);
            *open.last_mut()? += 1;
            self.skip_space();
            while self.peek()? == b']' {
                self.at += 1;
                let length = open.pop()?;
                let expected = &mut shape[open.len()];
                if *expected != 0 && *expected != length {
                    return None;
                }
                *expected = length;
                let Some(outer) = open.last_mut() else { return Some(Array { shape, values }) };
                *outer += 1;
                self.skip_space();
            }
            self.expect(b',')?;
        }
    }

    #[inline]
    fn number<T: Number>(&mut self) -> Option<T> {
        let start = self.at;
        let negative = self.peek()? == b'-';
        if negative {
            self.at += 1;
        }
        let first = self.peek()?;
        let (digits, value) = self.digits()?;
        if first == b'0' && digits > 1 {
            return None;
        }
        if matches!(self.peek()?, b'.' | b'e' | b'E') {
            // As JSON writes them, and correctly rounded, as Python's float() is.
            let (value, length) = f64::from_lexical_partial_with_options::<JSON>(&self.text[start..], &OPTIONS).ok()?;
            self.at = start + length;
            return T::from_float(value);
        }
        if digits > SAFE_DIGITS {
            return T::from_int(std::str::from_utf8(&self.text[start..self.at]).ok()?.parse().ok()?);
        }
        T::from_int(if negative { -value } else { value })
    }

    /// Reads one or more digits. Returns their count and their value, which is correct for up to
    /// [`SAFE_DIGITS`] digits.
    #[inline]
    fn digits(&mut self) -> Option<(usize, i64)> {
        let digits = self.text[self.at..].iter().take_while(|byte| byte.is_ascii_digit());
        let (count, value) = digits.fold((0, 0_i64), |(count, value), digit| {
            (count + 1, value.wrapping_mul(10).wrapping_add(i64::from(digit - b'0')))
        });
        self.at += count;
        (count > 0).then_some((count, value))
    }

    /// The next byte; `None` at the end of the text, where no array, key or object can be complete.
    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    #[inline]
    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    #[inline]
    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }
}
