//! How requests end, and why models refuse them, as metrics name it.

use crate::error::ErrorKind;

/// How a request ended, as the `outcome` label and Triton's failure `reason` have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Answered.
    Success,
    /// Refused before it ran: overloaded, unavailable or expired.
    Rejected,
    /// The client went away.
    Canceled,
    /// The request was wrong.
    Invalid,
    /// The run failed.
    Failed,
}

impl Outcome {
    /// The `outcome` label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Rejected => "rejected",
            Self::Canceled => "canceled",
            Self::Invalid => "invalid",
            Self::Failed => "failed",
        }
    }

    /// Triton's `reason` label, or `None` for a success.
    pub(super) fn triton_reason(self) -> Option<&'static str> {
        match self {
            Self::Success => None,
            Self::Rejected => Some("REJECTED"),
            Self::Canceled => Some("CANCELED"),
            Self::Failed => Some("BACKEND"),
            Self::Invalid => Some("OTHER"),
        }
    }
}

impl From<ErrorKind> for Outcome {
    /// How a request counts that ended with an error of this kind.
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Overloaded | ErrorKind::Unavailable | ErrorKind::DeadlineExceeded => Self::Rejected,
            ErrorKind::Internal => Self::Failed,
            _ => Self::Invalid,
        }
    }
}

/// Why a model refused a request on arrival, as the `reason` label has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There was no place in the queue.
    QueueSize,
    /// Its bytes had no room in the queue.
    QueueBytes,
    /// The work ahead would have taken past its deadline.
    Deadline,
}

impl Refusal {
    pub(super) const ALL: [Self; 3] = [Self::QueueSize, Self::QueueBytes, Self::Deadline];

    /// The `reason` label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::QueueSize => "queue_size",
            Self::QueueBytes => "queue_bytes",
            Self::Deadline => "deadline",
        }
    }
}
