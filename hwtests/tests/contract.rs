//! The contract over every engine, without a daemon and through one.

use hwtests::{
    engines::{AwsFace, Azure, Google, Kryoptic, MiniStack, Piv, SoftHsm, Software, SwTpm, Vault},
    fixture::{Direct, ThroughDaemon},
};
use signer_contract::contract_tests;

contract_tests!(software_direct, || Direct::new(Software::start()));
contract_tests!(software_daemon, || ThroughDaemon::new(Software::start()));
contract_tests!(softhsm_driver, || Direct::new(SoftHsm::start()));
contract_tests!(softhsm_daemon, || ThroughDaemon::new(SoftHsm::start()));
contract_tests!(kryoptic_driver, || Direct::new(Kryoptic::start()));
contract_tests!(kryoptic_daemon, || ThroughDaemon::new(Kryoptic::start()));
contract_tests!(google_direct, || Direct::new(Google::start()));
contract_tests!(google_daemon, || ThroughDaemon::new(Google::start()));
contract_tests!(azure_direct, || Direct::new(Azure::start()));
contract_tests!(azure_daemon, || ThroughDaemon::new(Azure::start()));

contract_tests!(piv_driver, || Direct::new(Piv::start()));
contract_tests!(piv_daemon, || ThroughDaemon::new(Piv::start()));
contract_tests!(vault_direct, || Direct::new(Vault::start()));
contract_tests!(vault_daemon, || ThroughDaemon::new(Vault::start()));
contract_tests!(aws_face_direct, || Direct::new(AwsFace::start()));
contract_tests!(aws_face_daemon, || ThroughDaemon::new(AwsFace::start()));
contract_tests!(ministack_direct, || Direct::new(MiniStack::start()));
contract_tests!(tpm_driver, || Direct::new(SwTpm::start()));
contract_tests!(tpm_daemon, || ThroughDaemon::new(SwTpm::start()));
contract_tests!(tpm_managed, || Direct::new(SwTpm::managed()));

/// The checks of PINs once more, where the device's own logins are counted.
mod softhsm_counted {
    use super::*;

    #[test]
    fn a_wrong_pin_is_tried_once() {
        signer_contract::test(|| Direct::new(SoftHsm::spied()), "a_wrong_pin_is_tried_once");
    }

    #[test]
    fn a_wrong_unlock_is_tried_once() {
        signer_contract::test(|| Direct::new(SoftHsm::spied()), "a_wrong_unlock_is_tried_once");
    }

    #[test]
    fn a_wrong_pin_is_tried_once_through_the_daemon() {
        signer_contract::test(|| ThroughDaemon::new(SoftHsm::spied()), "a_wrong_pin_is_tried_once");
    }

    #[test]
    fn a_wrong_unlock_is_tried_once_through_the_daemon() {
        signer_contract::test(|| ThroughDaemon::new(SoftHsm::spied()), "a_wrong_unlock_is_tried_once");
    }
}
