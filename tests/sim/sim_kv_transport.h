// SimKvTransport: K/V pages between simulated workers. What decides over a page is production code: KvPageHeader
// travels encoded, and KvInboundLedger judges identity, geometry and checksum (transport/). What is simulated is how
// bytes move: latency, bandwidth, reordering, flipped bits, half-written pages, streams that break, stall or meet a
// dead peer, and writes that are still on their way when the receiver closes.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/async/wake.h"
#include "sim_clock.h"
#include "sim_network.h"
#include "sim_world.h"
#include "transport/kv/kv_ledger.h"
#include "transport/kv/kv_transport.h"

namespace runahead::test {

struct KvWeather {
  Duration latency_mean = std::chrono::microseconds(200);
  double bytes_per_second = 1e7;   // of one link
  double reorder_probability = 0;  // of a page: others overtake it
  double corrupt_probability = 0;  // of a page: one bit of its header or its bytes
  double foreign_probability = 0;  // of a page: a page of an older stream comes before it
  double break_probability = 0;    // of a page: the stream breaks while it is half written
  double stall_probability = 0;    // of a page: nothing moves for stall_mean
  Duration stall_mean = std::chrono::seconds(2);
  double unnoticed_probability = 0;                    // of a killed peer: nobody is told
  Duration close_max = std::chrono::milliseconds(20);  // a closing transport may still write so long
};

struct SimInEnd;
struct SimOutEnd;
class SimKvTransport;

// All transports of the world.
class SimKvHub {
 public:
  SimKvHub(SimWorld& world, SimNetwork& network, KvWeather& weather)
      : world_(world), network_(network), weather_(weather) {}
  void drop_process(const Process& process);
  int64_t corrupted_pages() const { return corrupted_pages_; }
  bool ignore_checksum = false;  // the planted bug: whatever comes is taken for what was announced

 private:
  friend class SimKvTransport;
  friend class SimKvInbound;
  friend class SimKvOutbound;
  using In = std::shared_ptr<SimInEnd>;  // shared by the actor's handle and what is under way
  using Out = std::shared_ptr<SimOutEnd>;

  Time soon() { return world_.now() + world_.rng.exponential(weather_.latency_mean); }
  void meet(const In& in, Time connect_by);
  void attach(const In& in, const Out& out);
  void open_layers(const Out& out, int32_t count);
  void move_pages(const Out& out);
  void send_page(const Out& out, std::vector<std::byte> wire, Time sent_at, bool breaks);
  void arrive(const In& in, const Out& out, std::vector<std::byte> wire, bool breaks, Time held_since);
  void receive(const In& in, std::span<const std::byte> wire, bool breaks);
  void tell_sender(const In& in, Error error);
  void tell_receiver(const Out& out, Error error);
  void spoil(std::vector<std::byte>& wire);

  SimWorld& world_;
  SimNetwork& network_;
  KvWeather& weather_;
  std::map<std::string, SimKvTransport*> transports_;  // by address
  std::map<std::pair<NodeId, NodeId>, Time> link_free_;
  std::vector<std::byte> old_page_;  // header and bytes of some page that travelled before
  int64_t corrupted_pages_ = 0;
};

class SimKvTransport final : public KvTransport {
 public:
  SimKvTransport(SimKvHub& hub, Process& process);
  ~SimKvTransport() override;

  std::string name() const override { return "sim"; }
  std::string address() const override { return address_; }
  Result<void> register_memory(std::span<std::byte> pool) override;
  Result<std::unique_ptr<KvInbound>> open_inbound(KvInboundParams params) override;
  Result<std::unique_ptr<KvOutbound>> open_outbound(KvOutboundParams params) override;
  asio::awaitable<void> shutdown() override;

 private:
  friend class SimKvHub;
  friend class SimKvInbound;
  friend class SimKvOutbound;

  SimKvHub& hub_;
  Process& process_;
  SimClock clock_;
  std::string address_;
  std::span<std::byte> pool_;
  std::map<AttemptId, std::shared_ptr<SimInEnd>> inbound_;
  std::map<AttemptId, std::shared_ptr<SimOutEnd>> outbound_;
  std::map<AttemptId, std::pair<std::shared_ptr<SimInEnd>, Time>> waiting_;  // receivers that came before the sender
};

}  // namespace runahead::test
