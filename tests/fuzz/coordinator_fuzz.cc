// Everything that the control plane takes from peers: the input is a sequence of records (a peer, a length, an envelope's
// bytes) for a coordinator with one prefill and one decode worker and a request in work. Nothing that comes ends it.
#include <cmath>
#include <cstdlib>

#include "actors/coordinator/coordinator_core.h"

namespace {

using namespace runahead;

constexpr uint64_t kEpoch = 3;
constexpr Time kNow = std::chrono::seconds(1);
const ModelShape kShape{.architecture = "fuzz",
                        .num_layers = 2,
                        .model_dim = 64,
                        .num_heads = 1,
                        .num_kv_heads = 1,
                        .head_dim = 64,
                        .ffn_dim = 128,
                        .vocab_size = 100,
                        .context_len = 4096};

void check(bool condition) {
  if (!condition) std::abort();
}

proto::Envelope hello(bool is_prefill, uint64_t incarnation) {
  proto::Envelope message;
  proto::Hello& hello = *message.mutable_hello();
  hello.set_protocol_version(kMessagesVersion);
  hello.set_role(is_prefill ? proto::Hello::PREFILL : proto::Hello::DECODE);
  hello.set_incarnation(incarnation);
  hello.set_fingerprint("model");
  hello.set_kv_transport("memory");
  hello.set_kv_address("kv");
  hello.set_pages_total(1000);
  hello.set_page_bytes(64);
  hello.set_num_layers(kShape.num_layers);
  hello.set_attempts_max(4);
  return message;
}

void settle(CoordinatorCore& core) {
  while (core.start_next(kNow)) core.dispatched(kNow);
  for (const CoordinatorAction& action : core.take_actions()) {
    const auto* emit = std::get_if<EmitEvent>(&action);
    const auto* tokens = emit ? std::get_if<TokensEvent>(&emit->event) : nullptr;
    if (tokens == nullptr) continue;
    for (const SampledToken& token : tokens->tokens)
      check(token.token >= 0 && token.token < kShape.vocab_size && std::isfinite(token.logprob));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  SeededRng rng(1);
  CoordinatorSink metrics;
  CoordinatorCore core({.epoch = kEpoch, .shape = kShape}, rng, metrics);
  for (const PeerId peer : {PeerId{1}, PeerId{2}}) {
    core.on_connected(peer, kNow);
    core.on_message(peer, hello(peer == 1, peer), kNow);
  }
  core.on_connected(3, kNow);
  (void)core.submit({.prompt = std::vector<TokenId>(100, 7), .max_new_tokens = 5}, kNow);
  (void)core.submit({.prompt = std::vector<TokenId>(100, 7), .max_new_tokens = 5, .prompt_logprobs = 1}, kNow);
  settle(core);
  while (size >= 3) {
    const PeerId peer = 1 + data[0] % 3;
    const size_t length = std::min<size_t>(data[1] | data[2] << 8, size - 3);
    auto message = parse_envelope(std::string(reinterpret_cast<const char*>(data + 3), length));
    data += 3 + length, size -= 3 + length;
    if (!message) continue;
    message->set_epoch(kEpoch);  // others are dropped unread
    core.on_message(peer, *message, kNow);
    core.on_tick(kNow);
    settle(core);
    for (const WorkerView& worker : core.view(kNow).workers)
      check(std::isfinite(worker.tokens_per_second + worker.link_bytes_per_second));
  }
  return 0;
}
