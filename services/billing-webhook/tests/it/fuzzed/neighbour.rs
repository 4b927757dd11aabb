//! Inputs near a seed, the same in each run.

/// The same throws in each run (SplitMix64).
pub struct Dice(pub u64);

impl Dice {
    fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end.max(1)).expect("a size");
        usize::try_from(self.throw() % end).expect("a size")
    }
}

/// The seed with one to three changes of the kinds that break readers.
pub fn neighbour(seed: &[u8], other: &[u8], dice: &mut Dice) -> Vec<u8> {
    const WORDS: [&str; 12] = [
        "null",
        "\"\"",
        "-1",
        "9223372036854775808",
        "1e400",
        "{}",
        "[]",
        "\\u0000",
        "\u{feff}",
        ".",
        ",v1=",
        "\n",
    ];
    let mut input = seed.to_vec();
    for _ in 0..=dice.below(3) {
        let at = dice.below(input.len() + 1);
        let end = (at + dice.below(24)).min(input.len());
        match dice.below(6) {
            0 if !input.is_empty() => {
                let bit = dice.below(input.len() * 8);
                input[bit / 8] ^= 1 << (bit % 8);
            }
            1 => drop(input.drain(at..end)),
            2 => {
                let again = input[at..end].to_vec();
                input.splice(at..at, again);
            }
            3 => {
                let from = dice.below(other.len() + 1);
                let until = (from + dice.below(64)).min(other.len());
                input.splice(at..end, other[from..until].iter().copied());
            }
            4 => input = value_replaced(&input, WORDS[dice.below(WORDS.len())], dice),
            _ => drop(input.splice(at..end, WORDS[dice.below(WORDS.len())].bytes())),
        }
    }
    input
}

/// One value behind a colon gives way to `word`, so that the rest can still be read.
fn value_replaced(input: &[u8], word: &str, dice: &mut Dice) -> Vec<u8> {
    let colons: Vec<_> = (0..input.len()).filter(|at| input[*at] == b':').collect();
    if colons.is_empty() {
        return input.to_vec();
    }
    let start = colons[dice.below(colons.len())] + 1;
    let value = &input[start..];
    let end = value
        .iter()
        .position(|byte| b",}]\n".contains(byte))
        .unwrap_or(value.len());
    [&input[..start], word.as_bytes(), &value[end..]].concat()
}
