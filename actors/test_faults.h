// TestFaults: bugs that the simulation plants to prove that it would find them (tests/sim, mutants). All false in
// production; each is read in exactly one place, which is named here. The mutant that ignores checksums lives in the
// simulated transport.
#pragma once

namespace runahead {

struct TestFaults {
  bool skip_attempt_check = false;          // CoordinatorCore::is_current: messages of older attempts count
  bool ack_before_commit = false;           // JobService::submit: acknowledges a job before it is durable
  bool no_lease_sweep = false;              // WorkerLink::run: a lost coordinator does not end the attempts
  bool double_token_index = false;  // CoordinatorCore::accept_tokens: a retry numbers its first token as the last one
  bool accept_incomplete_manifest = false;  // DecodeCore::is_complete: a sequence joins before all its pages have come
};

}  // namespace runahead
