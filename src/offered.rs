//! What a peer said at binding that it offers: a list that never changes, and a claim like all it says. A
//! name or number that is not in it is looked up in vain, never out of bounds.

use std::collections::HashMap;

use crate::limits::PROCEDURES;

/// The procedures a peer offers, by name and by number.
#[derive(Debug, Default)]
pub(crate) struct Offered {
    list: Vec<(String, String)>,
    by_name: HashMap<String, u16>,
}

impl Offered {
    /// From names and signatures in the order of their numbers. `None` if there are too many.
    pub(crate) fn new(list: Vec<(String, String)>) -> Option<Self> {
        if list.len() > PROCEDURES {
            return None;
        }
        let mut by_name = HashMap::with_capacity(list.len());
        for (number, (name, _)) in list.iter().enumerate() {
            by_name.insert(name.clone(), u16::try_from(number).ok()?);
        }
        Some(Self { list, by_name })
    }

    pub(crate) fn find(&self, name: &str) -> Option<u16> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn name(&self, number: u16) -> &str {
        self.list
            .get(usize::from(number))
            .map_or("", |(name, _)| name)
    }

    pub(crate) fn signature(&self, number: u16) -> &str {
        let found = self.list.get(usize::from(number));
        found.map_or("", |(_, signature)| signature)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = self.list.iter();
        all.map(|(name, signature)| (name.as_str(), signature.as_str()))
    }
}
