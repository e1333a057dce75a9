// How a token is chosen, and one that was chosen, as Protobuf messages: the one encoding for the wire (actors/messages) and
// for job rows (actors/jobs/job_rows). What decode() gives is not checked: each of the two knows its own bounds. Pure; any
// thread.
#pragma once

#include "model/sampling_params.h"
#include "proto/common.pb.h"

namespace runahead {

void encode(const SamplingParams& from, proto::Sampling& to);
SamplingParams decode(const proto::Sampling& from);
void encode(const SampledToken& from, proto::Token& to);  // what cannot be becomes -9999
SampledToken decode(const proto::Token& from);

}  // namespace runahead
