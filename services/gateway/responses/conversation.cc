#include "services/gateway/responses/conversation.h"

#include <algorithm>

#include "services/gateway/request/response_items.h"
#include "services/gateway/responses/response_body.h"

namespace runahead {
namespace {

using nlohmann::json;

constexpr const char* kParam = "previous_response_id";

struct Turn {
  json items;
  std::string previous_id;
};

Result<Turn> turn_of(const JobView& job, const TextCodec& codec) {
  if (job.head.status != JobStatus::kSucceeded)
    return fail(ErrorCode::kInvalidArgument,
                "response " + job.head.id + " is " + std::string(name(job.head.status)) +
                    "; a conversation goes on from one that was answered",
                kParam);
  const KeptResponse kept = kept_response(job.client_json);
  Turn turn{.items = input_items(job.head.id, kept)};
  for (json& item : output_items(job, kept, codec)) turn.items.push_back(std::move(item));
  const auto previous = kept.shown.find(kParam);
  if (previous != kept.shown.end() && previous->is_string()) turn.previous_id = previous->get<std::string>();
  return turn;
}

}  // namespace

Task<JobView> find_response(JobsApi& jobs, std::string owner, std::string id) {
  Result<JobView> found = co_await jobs.find(std::move(owner), id);
  const bool other_kind = found && found->head.kind != kResponseKind;
  if (other_kind || (!found && found.error().code == ErrorCode::kNotFound))
    co_return fail(ErrorCode::kNotFound, "there is no response " + id, "id");
  co_return found;
}

Task<json> conversation(const GatewayContext& context, JobsApi& jobs, std::string owner, std::string last) {
  std::vector<json> turns;  // newest first
  size_t bytes = 0;
  for (std::string id = std::move(last); !id.empty();) {
    if (turns.size() == kTurnsMax)
      co_return fail(ErrorCode::kTooLarge, "the conversation has more than 1024 responses; begin a new one", kParam);
    Result<JobView> found = co_await find_response(jobs, owner, id);
    if (!found && found.error().code == ErrorCode::kNotFound) {
      const std::string why =
          turns.empty() ? "" : ", which the conversation has gone through: it was deleted or is past its keeping";
      co_return fail(ErrorCode::kNotFound, "there is no response " + id + why, kParam);
    }
    const JobView job = CO_TRY(found);
    const auto read = [&] { return turn_of(job, context.codec); };
    Result<Turn> turn = co_await context.text_lane.render(text_bytes(job), read);
    if (!turn) co_return std::unexpected(std::move(turn.error()));
    bytes += text_bytes_of(turn->items);
    if (bytes > limits::kJsonBodyBytesMax)
      co_return fail(ErrorCode::kTooLarge, "the conversation has more than 16 MiB of text; begin a new one", kParam);
    turns.push_back(std::move(turn->items));
    id = std::move(turn->previous_id);
  }
  json all = json::array();
  for (auto turn = turns.rbegin(); turn != turns.rend(); ++turn) std::ranges::move(*turn, std::back_inserter(all));
  co_return all;
}

}  // namespace runahead
