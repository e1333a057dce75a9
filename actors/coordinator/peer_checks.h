// What workers say, range-checked where it is parsed: behind these two nothing a worker can write into a message is out
// of bounds, so no arithmetic on it overflows and no invariant depends on it (base/limits.h, "What peers may say").
// Pure. What the numbers mean for the cluster (is it this model? is it that worker's turn?) is for the registry and the
// core.
#pragma once

#include "base/result.h"
#include "model/engine.h"
#include "proto/control.pb.h"

namespace runahead {

// kInvalidArgument with the field that no worker of ours would send.
Result<void> check_hello(const proto::Hello& hello);
// certified_role: as in ControlEvent::payload. kIncompatible: it joins as something else.
Result<void> check_certified(const proto::Hello& hello, std::string_view certified_role);
// Every other message of a worker.
Result<void> check_report(const proto::Envelope& message, const ModelShape& shape);

}  // namespace runahead
