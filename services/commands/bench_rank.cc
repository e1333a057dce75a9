#include "services/commands/bench_rank.h"

#include <unistd.h>

#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/read_until.hpp>
#include <nlohmann/json.hpp>

#include "actors/worker/thread_lane.h"
#include "bench/rivals/rank_run.h"
#include "services/commands/output.h"
#include "services/engine/engine_loading.h"
#include "services/engine/engine_profile.h"
#include "services/process/process.h"
#include "transport/kv/select_transport.h"

namespace runahead {
namespace {

using nlohmann::json;
using rivals::FirstToken;
using rivals::RankOrder;
using rivals::RankReport;

constexpr size_t kLineBytesMax = 64 << 20;  // a million tokens in decimal digits, and as much again
constexpr double kLimitSecondsMax = 86'400;

Result<RankOrder> parse_order(const std::string& line) {
  const json fields = json::parse(line, nullptr, false);
  const auto wrong =
      fail(ErrorCode::kInvalidArgument,
           "an order is a JSON object on one line with run, scheme, rank, peers and tokens (bench_rank.h)");
  if (!fields.is_object()) return wrong;
  try {
    RankOrder order{.run = fields.at("run"),
                    .scheme = fields.at("scheme"),
                    .rank = fields.at("rank"),
                    .peers = fields.at("peers"),
                    .tokens = fields.at("tokens")};
    order.cuts = fields.value("cuts", order.cuts);
    order.limit_seconds = fields.value("limit_seconds", order.limit_seconds);
    if (!(order.limit_seconds > 0 && order.limit_seconds <= kLimitSecondsMax))
      return fail(ErrorCode::kInvalidArgument, "limit_seconds is above 0, and a day at most", "limit_seconds");
    return order;
  } catch (const json::exception&) {
    return wrong;
  }
}

// Everything a rank is made of, in the order in which it is built; destroyed in reverse.
struct RankParts {
  ServiceProcess process;
  std::unique_ptr<Transformer> engine;
  std::unique_ptr<KvPool> pool;
  std::unique_ptr<ThreadLane> lane;
  std::unique_ptr<KvTransport> kv;

  rivals::RankEnv env() {
    return {.executor = process.io().get_executor(),
            .clock = process.clock(),
            .kv = *kv,
            .pool = *pool,
            .lane = *lane,
            .engine = *engine};
  }
};

Result<void> build(RankParts& parts, const EngineFlags& flags, const BenchRankOptions& options) {
  KvTransportOptions kv{.incarnation = random_seed() | 1, .allow_remote = options.insecure_network};
  kv.listen = TRY(parse_host_port(options.data_listen));
  parts.engine = TRY(open_engine(flags, false));
  const ModelShape& shape = parts.engine->shape();
  parts.pool = TRY(make_kv_pool(*parts.engine, int64_t{shape.num_layers} * pages_for(shape.context_len)));
  parts.lane = std::make_unique<ThreadLane>(parts.process.clock());
  parts.kv = TRY(make_kv_transport(options.transport, kv, parts.process.io().get_executor(), parts.process.clock()));
  return parts.kv->register_memory(parts.pool->memory());
}

Result<json> hello(RankParts& parts) {
  const EngineProfile profile = TRY(measure_engine(*parts.engine, parts.process.clock()));
  json schemes = json::object();
  for (const rivals::Scheme& scheme : rivals::schemes())
    schemes[std::string(scheme.name)] = {
        {"what", scheme.what}, {"chunks_a_rank", scheme.chunks_a_rank}, {"exact", scheme.exact}};
  return json{{"kv", parts.kv->address()},
              {"kv_bytes_per_token",
               parts.engine->page_bytes() * static_cast<size_t>(parts.engine->shape().num_layers) / kPageTokens},
              {"seconds_per_token", profile.seconds_per_token},
              {"seconds_per_pair", profile.seconds_per_pair},
              {"schemes", schemes}};
}

asio::awaitable<json> carry_out(const rivals::RankEnv& env, const std::string& line) {
  Result<RankOrder> order = parse_order(line);
  if (!order) co_return json{{"error", order.error().message}};
  const uint64_t run = order->run;
  const auto on_token = [run](const FirstToken& first) {
    print_json({{"run", run}, {"token", first.token}, {"logits_sha256", first.logits_sha256}});
  };
  const Result<RankReport> report = co_await rivals::run_rank(env, std::move(*order), on_token);
  if (!report) co_return json{{"run", run}, {"error", report.error().message}};
  co_return json{{"run", run},
                 {"seconds", report->seconds},
                 {"compute_seconds", report->compute_seconds},
                 {"wait_seconds", report->wait_seconds},
                 {"sent_bytes", report->sent_bytes}};
}

// Order after order, until stdin ends or is closed by a signal.
Task<void> serve(RankParts& parts, asio::posix::stream_descriptor& input) {
  std::string buffered;
  Result<void> result;
  while (true) {
    auto [error, bytes] =
        co_await asio::async_read_until(input, asio::dynamic_buffer(buffered, kLineBytesMax), '\n', kAsTuple);
    if (error == asio::error::not_found)
      result = fail(ErrorCode::kTooLarge, "an order has more than " + std::to_string(kLineBytesMax) + " bytes");
    if (error) break;
    const std::string line = buffered.substr(0, bytes);
    buffered.erase(0, bytes);
    print_json(co_await carry_out(parts.env(), line));
  }
  co_await parts.kv->shutdown();
  co_return result;
}

}  // namespace

Result<void> bench_rank(const EngineFlags& flags, const BenchRankOptions& options) {
  RankParts parts;
  TRY(build(parts, flags, options));
  asio::posix::stream_descriptor input(parts.process.io());
  boost::system::error_code error;
  input.assign(dup(STDIN_FILENO), error);
  if (error)
    return fail(ErrorCode::kInvalidArgument, "orders come over a pipe on stdin, and this is none: " + error.message());
  print_json(TRY(hello(parts)));
  const auto close = [&input] {
    boost::system::error_code ignored;
    input.close(ignored);
  };
  return parts.process.run(serve(parts, input), close, close);
}

}  // namespace runahead
