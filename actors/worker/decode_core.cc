#include "actors/worker/decode_core.h"

#include <algorithm>

#include "base/check.h"

namespace runahead {

void DecodeCore::add(DecodeOrder order) {
  auto sequence = std::make_shared<DecodeSequence>();
  sequence->generated.assign(order.prompt.begin() + order.prompt_len_original, order.prompt.end());
  const AttemptId id = order.attempt;
  sequence->order = std::move(order);
  sequences_.emplace(id, std::move(sequence));
}

std::vector<DecodeAction> DecodeCore::pages_complete(AttemptId id) {
  const auto found = sequences_.find(id);
  if (found == sequences_.end()) return {};
  found->second->pages_complete = true;
  return finish_if_done(*found->second);
}

std::vector<DecodeAction> DecodeCore::first_token(AttemptId id, TokenId token, Time now) {
  const auto found = sequences_.find(id);
  if (found == sequences_.end() || found->second->first_token_at) return {};
  DecodeSequence& sequence = *found->second;
  sequence.first_token_at = now;
  sequence.generated.push_back(token);
  sequence.made = 1;
  return finish_if_done(sequence);
}

int32_t DecodeCore::made(AttemptId id) const {
  const auto found = sequences_.find(id);
  return found != sequences_.end() && has_joined(*found->second) ? found->second->made : 0;
}

std::vector<DecodeStepRow> DecodeCore::next_step(Time now) {
  std::vector<DecodeStepRow> rows;
  for (auto& [id, sequence] : sequences_) {
    if (!has_joined(*sequence) || sequence->done) continue;
    if (slots_ > 0 && std::ssize(rows) == slots_) break;
    if (!sequence->handoff) sequence->handoff = now - *sequence->first_token_at;
    rows.push_back({sequence, sequence->generated.back(), sequence->next_position() - 1});
  }
  return rows;
}

std::vector<DecodeAction> DecodeCore::stepped(const std::vector<DecodeStepRow>& rows,
                                              std::vector<SampledToken> tokens) {
  RUNAHEAD_CHECK(rows.size() == tokens.size(), "one token a row");
  std::vector<DecodeAction> actions;
  for (size_t i = 0; i < rows.size(); ++i) {
    const AttemptId id = rows[i].sequence->order.attempt;
    const auto found = sequences_.find(id);
    if (found == sequences_.end()) continue;  // it left while the step ran
    DecodeSequence& sequence = *found->second;
    sequence.generated.push_back(tokens[i].token);
    actions.push_back(SendToken{id, sequence.made++, std::move(tokens[i])});
    std::ranges::move(finish_if_done(sequence), std::back_inserter(actions));
  }
  return actions;
}

std::vector<DecodeAction> DecodeCore::finish_if_done(DecodeSequence& sequence) {
  if (!has_joined(sequence) || sequence.done) return {};
  const bool stopped = std::ranges::count(sequence.order.stop_tokens, sequence.generated.back()) > 0;
  if (!stopped && sequence.made < sequence.order.max_new_tokens) return {};
  sequence.done = true;
  return {SequenceDone{sequence.order.attempt, sequence.made, sequence.handoff.value_or(Duration{0})}};
}

}  // namespace runahead
