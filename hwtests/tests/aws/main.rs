//! AWS KMS on its bad days, and beside other programs. What the service cannot be made to say, the project's own engine
//! says; what is true of the service is seen at ministack, too.
#![allow(clippy::unwrap_used)] // tests

mod aws_answers;
mod aws_life;
mod aws_places;
mod support;
