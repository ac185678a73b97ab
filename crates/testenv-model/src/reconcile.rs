//! Planned against reported: a test that was lost or ran twice is a failure, whatever it said.

use std::collections::{BTreeMap, BTreeSet};

use crate::CaseId;

/// How what was reported differs from what was planned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reconciliation {
    /// Planned, but not reported.
    pub missing: Vec<CaseId>,
    /// Reported more than once.
    pub doubled: Vec<CaseId>,
    /// Reported, but not planned.
    pub unplanned: Vec<CaseId>,
}

impl Reconciliation {
    /// Whether every planned case was reported once, and nothing else was.
    pub fn is_exact(&self) -> bool {
        self.missing.is_empty() && self.doubled.is_empty() && self.unplanned.is_empty()
    }
}

/// Compares the planned cases with those reported. Each list of the answer is sorted and names a case once.
///
/// ```
/// use testenv_model::{CaseId, reconcile};
/// let (a, b, c) = (CaseId::new("s", "a"), CaseId::new("s", "b"), CaseId::new("s", "c"));
/// let found = reconcile([&a, &b], [&b, &b, &c]);
/// assert_eq!((found.missing, found.doubled, found.unplanned), (vec![a], vec![b], vec![c]));
/// ```
pub fn reconcile<'a>(
    planned: impl IntoIterator<Item = &'a CaseId>,
    reported: impl IntoIterator<Item = &'a CaseId>,
) -> Reconciliation {
    let planned: BTreeSet<&CaseId> = planned.into_iter().collect();
    let mut times: BTreeMap<&CaseId, usize> = BTreeMap::new();
    for id in reported {
        *times.entry(id).or_default() += 1;
    }
    Reconciliation {
        missing: planned.iter().filter(|id| !times.contains_key(**id)).map(|id| (*id).clone()).collect(),
        doubled: times.iter().filter(|(_, times)| **times > 1).map(|(id, _)| (*id).clone()).collect(),
        unplanned: times.keys().filter(|id| !planned.contains(**id)).map(|id| (*id).clone()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every way in which four cases can be planned (or not) and reported zero, one or two times.
    #[test]
    fn each_case_is_judged_by_itself() {
        let ids: Vec<CaseId> = ["a", "b", "c", "d"].map(|name| CaseId::new("suite", name)).into();
        for mut code in 0..6_usize.pow(4) {
            let (mut planned, mut reported, mut expected) = (vec![], vec![], Reconciliation::default());
            for id in &ids {
                let (is_planned, times) = (code % 2 == 1, (code / 2) % 3);
                code /= 6;
                planned.extend(is_planned.then_some(id));
                reported.extend(std::iter::repeat_n(id, times));
                expected.missing.extend((is_planned && times == 0).then(|| id.clone()));
                expected.doubled.extend((times == 2).then(|| id.clone()));
                expected.unplanned.extend((!is_planned && times > 0).then(|| id.clone()));
            }
            reported.reverse();
            let found = reconcile(planned, reported);
            assert_eq!(found, expected);
            assert_eq!(found.is_exact(), found == Reconciliation::default());
        }
    }
}
