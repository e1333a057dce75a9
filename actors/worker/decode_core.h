// DecodeCore: the decisions of continuous batching. A sequence joins the batch when all its pages have come (the
// manifest is complete) and its first token is known; it leaves when it has made max_new_tokens, or a stop token, or is
// ended. Nothing is preempted: pages for the whole sequence are leased before it joins. A step takes at most `slots` of
// them, the oldest requests; a younger one has its first token, which needs no slot, and waits for the next free one.
//   pure   events in, actions out; time is an argument. threads: the actor's executor; a sequence's numbers are read on
//          the lane too, while its step runs, and change only between steps.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <variant>
#include <vector>

#include "actors/messages.h"
#include "actors/test_faults.h"

namespace runahead {

// Shared with the step in work, which may outlive the sequence's place in the batch.
struct DecodeSequence {
  DecodeOrder order;
  std::vector<TokenId> generated;  // behind the client's prompt: those of earlier attempts, then this one's
  int32_t made = 0;  // tokens of this attempt, the first one included
  bool pages_complete = false;
  std::optional<Time> first_token_at;
  std::optional<Duration> handoff;  // FirstToken to the first step
  bool done = false;

  std::span<const TokenId> prompt() const {  // the client's
    return std::span(order.prompt).first(static_cast<size_t>(order.prompt_len_original));
  }
  int32_t next_position() const { return order.prompt_len + made; }
};

// One row of a step: the newest token goes in, the next one comes out.
struct DecodeStepRow {
  std::shared_ptr<const DecodeSequence> sequence;
  TokenId token = 0;
  int32_t position = 0;  // of `token`
};

struct SendToken {
  AttemptId attempt;
  int32_t index = 0;  // among the tokens of this attempt
  SampledToken token;
};
struct SequenceDone {
  AttemptId attempt;
  int32_t tokens = 0;
  Duration handoff{0};  // 0: it never needed a step
};
using DecodeAction = std::variant<SendToken, SequenceDone>;

class DecodeCore {
 public:
  // slots: 0 for all.
  explicit DecodeCore(TestFaults faults = {}, int32_t slots = 0) : faults_(faults), slots_(slots) {}

  void add(DecodeOrder order);
  std::vector<DecodeAction> pages_complete(AttemptId id);
  std::vector<DecodeAction> first_token(AttemptId id, TokenId token, Time now);
  // Tokens of this attempt, for which the sequence has keys and values but for the last one; 0: it has not joined.
  int32_t made(AttemptId id) const;
  // Unknown ids are no error: the other side may have ended it meanwhile.
  void leave(AttemptId id) { sequences_.erase(id); }

  // The sequences that go on, in the order of their ids. Empty: nothing to do until the next event.
  std::vector<DecodeStepRow> next_step(Time now);
  // tokens[i] was sampled for rows[i] of the last next_step().
  std::vector<DecodeAction> stepped(const std::vector<DecodeStepRow>& rows, std::vector<SampledToken> tokens);

 private:
  bool is_complete(const DecodeSequence& sequence) const {
    return sequence.pages_complete || faults_.accept_incomplete_manifest;
  }
  bool has_joined(const DecodeSequence& sequence) const { return is_complete(sequence) && sequence.first_token_at; }
  std::vector<DecodeAction> finish_if_done(DecodeSequence& sequence);

  TestFaults faults_;
  int32_t slots_;
  std::map<AttemptId, std::shared_ptr<DecodeSequence>> sequences_;
};

}  // namespace runahead
