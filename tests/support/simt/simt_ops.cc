#include "simt_ops.h"

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include "apart_memory.h"
#include "kernels/cuda/launches.cuh"
#include "tests/support/stream_double.h"

namespace runahead::cuda {

using Graph = std::vector<std::function<void()>>;
thread_local std::unique_ptr<Graph> graph;  // that is being made

template <class Args>
void start(void (*kernel)(Args), Grid grid, int threads, const Args& args) {
  const auto run = [=] {
    simt::launch({static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y), static_cast<unsigned>(grid.z)},
                 static_cast<unsigned>(threads), [&] { kernel(args); });
  };
  if (graph) graph->emplace_back(run);
  else run();
}

// On the stream's own thread, which bears a launch as any other does.
template <class Args>
void start_on(void* stream, void (*kernel)(Args), Grid grid, int threads, const Args& args) {
  static_cast<runahead::StreamDouble*>(stream)->enqueue([=] { start(kernel, grid, threads, args); });
}

namespace {

void add_graphs(CudaOps& ops) {
  ops.begin_graph = [] { graph = std::make_unique<Graph>(); };
  ops.end_graph = []() -> void* { return graph.release(); };
  ops.run_graph = [](void* made) {
    for (const auto& run : *static_cast<Graph*>(made)) run();
  };
  ops.free_graph = [](void* made) { delete static_cast<Graph*>(made); };
}

void add_streams(CudaOps& ops) {
  using Event = std::atomic<bool>;
  ops.use_device = [] {};
  ops.make_stream = []() -> void* { return new runahead::StreamDouble; };
  ops.free_stream = [](void* stream) { delete static_cast<runahead::StreamDouble*>(stream); };
  ops.make_event = []() -> void* { return new Event(true); };
  ops.free_event = [](void* event) { delete static_cast<Event*>(event); };
  ops.record = [](void* event, void* stream) {
    *static_cast<Event*>(event) = false;
    static_cast<runahead::StreamDouble*>(stream)->enqueue([event] { *static_cast<Event*>(event) = true; });
  };
  ops.has_passed = [](void* event) { return static_cast<Event*>(event)->load(); };
  // Late on purpose: who sends a page before it is on the host sends another.
  ops.to_host_on = [](void* stream, void* host, const void* device, size_t bytes) {
    static_cast<runahead::StreamDouble*>(stream)->enqueue([=] {
      std::this_thread::sleep_for(std::chrono::microseconds(300));
      std::memcpy(host, device, bytes);
    });
  };
  ops.follow = [](void*) {};  // what computes is done when it is asked
  ops.call_on = [](void* stream, void (*call)(void*), void* with) {
    static_cast<runahead::StreamDouble*>(stream)->enqueue([=] { call(with); });
  };
  ops.pin = [](void*, size_t) { return true; };
  ops.unpin = [](void*) {};
  ops.copy_on = [](void* stream, void* device, const void* from, size_t bytes) {
    static_cast<runahead::StreamDouble*>(stream)->enqueue([=] { std::memcpy(device, from, bytes); });
  };
  ops.allocate_apart = allocate_mapped;
  ops.release_apart = release_mapped;
  ops.share = share_mapped;
  ops.open_shared = open_mapped;
  ops.close_shared = close_mapped;
  ops.allocate_shared = [](size_t bytes) { return std::aligned_alloc(64, (bytes + 63) / 64 * 64); };
  ops.release_shared = std::free;
}

}  // namespace

const CudaOps& simt_ops() {
  static const CudaOps ops = [] {
    CudaOps made{.device = "emulation", .kind = "simt", .id = "emulation"};
    made.free_bytes = [] { return size_t{1} << 30; };
    made.allocate = [](size_t bytes) { return std::aligned_alloc(256, (bytes + 255) / 256 * 256); };
    made.release = std::free;
    made.to_device = made.to_host =
        made.copy = [](void* to, const void* from, size_t bytes) { std::memcpy(to, from, bytes); };
    made.clear = [](void* device, size_t bytes) { std::memset(device, 0, bytes); };
    made.finish = [] {};
    made.error = []() -> const char* { return nullptr; };
    add_graphs(made);
    add_streams(made);
    add_kernels(made);
    return made;
  }();
  return ops;
}

namespace {

std::mutex mutex;  // guards what follows
enum class Place { kHost, kDevice, kShared };
struct Allocation {
  size_t bytes = 0;
  Place place = Place::kDevice;
};
std::map<const std::byte*, Allocation> allocations;

Place place_of(const void* at) {
  const std::lock_guard lock(mutex);
  const auto* byte = static_cast<const std::byte*>(at);
  auto next = allocations.upper_bound(byte);
  if (next == allocations.begin()) return Place::kHost;
  --next;
  return byte < next->first + next->second.bytes ? next->second.place : Place::kHost;
}
template <class... Pointers>
void need_device(const char* op, const Pointers*... pointers) {
  for (const Place place : {place_of(static_cast<const void*>(pointers))...})
    if (place == Place::kHost) throw simt::Fault(std::string(op) + " is given memory that is not the device's");
}
void need_host(const char* op, const void* host) {
  if (graph) throw simt::Fault(std::string(op) + " in the midst of a graph");
  if (place_of(host) == Place::kDevice)
    throw simt::Fault(std::string(op) + " is given the device's memory for the host's");
}

void* noted(void* made, Place place, size_t bytes) {
  const std::lock_guard lock(mutex);
  allocations[static_cast<const std::byte*>(made)] = {bytes, place};
  return made;
}
void* forget(const char* op, void* device) {
  need_device(op, device);
  const std::lock_guard lock(mutex);
  allocations.erase(static_cast<const std::byte*>(device));
  return device;
}
void* allocate_at(Place place, size_t bytes) {
  if (graph) throw simt::Fault("an allocation in the midst of a graph");
  void* made = simt_ops().allocate(bytes);
  std::memset(made, 0xff, bytes);  // NaN in every format: a device's memory holds anything
  return noted(made, place, bytes);
}

void add_memory(CudaOps& ops) {
  ops.allocate = [](size_t bytes) { return allocate_at(Place::kDevice, bytes); };
  ops.allocate_shared = [](size_t bytes) { return allocate_at(Place::kShared, bytes); };
  ops.release = ops.release_shared = [](void* memory) { simt_ops().release(forget("release", memory)); };
  ops.allocate_apart = [](size_t bytes) { return noted(allocate_mapped(bytes), Place::kDevice, bytes); };
  ops.release_apart = [](void* device) { release_mapped(forget("release_apart", device)); };
  ops.to_device = [](void* device, const void* host, size_t bytes) {
    need_device("to_device", device);
    need_host("to_device", host);
    simt_ops().to_device(device, host, bytes);
  };
  ops.to_host = [](void* host, const void* device, size_t bytes) {
    need_device("to_host", device);
    need_host("to_host", host);
    simt_ops().to_host(host, device, bytes);
  };
  ops.copy = [](void* to, const void* from, size_t bytes) {
    if (graph) throw simt::Fault("copy in the midst of a graph");
    need_device("copy", to, from);
    simt_ops().copy(to, from, bytes);
  };
  ops.clear = [](void* device, size_t bytes) {
    if (graph) throw simt::Fault("clear in the midst of a graph");
    need_device("clear", device);
    simt_ops().clear(device, bytes);
  };
}

void add_products(CudaOps& ops) {
  ops.dequantize = [](const DequantizeArgs& a) {
    need_device("dequantize", a.blocks, a.out);
    dequantize(a);
  };
  ops.embed = [](const EmbedArgs& a) {
    need_device("embed", a.table, a.tokens, a.out);
    embed(a);
  };
  ops.rms_norm = [](const RmsNormArgs& a) {
    need_device("rms_norm", a.x, a.gain, a.out);
    rms_norm(a);
  };
  ops.gemm = [](const GemmArgs& a) {
    need_device("gemm", a.a, a.weights, static_cast<const std::byte*>(a.out));
    gemm(a);
  };
  ops.silu_mul = [](const SiluMulArgs& a) {
    need_device("silu_mul", a.y, a.out);
    silu_mul(a);
  };
}

void add_attention(CudaOps& ops) {
  ops.store_qkv = [](const StoreQkvArgs& a) {
    need_device("store_qkv", a.qkv, a.cos_sin, a.queries, a.keys);
    for (int row = 0; row < a.rows; ++row) need_device("store_qkv", a.keys[row], a.keys[row] + a.value_offset);
    store_qkv(a);
  };
  ops.attend = [](const AttendArgs& a) {
    need_device("attend", a.queries, a.pages, a.sums, a.state);
    for (int page = a.page_begin; page < a.page_end; ++page) need_device("attend", a.pages[page]);
    attend(a);
  };
  ops.finish_attention = [](const FinishAttentionArgs& a) {
    need_device("finish_attention", a.sums, a.state, a.out);
    finish_attention(a);
  };
  ops.decode_attend = [](const DecodeAttendArgs& a) {
    need_device("decode_attend", a.queries, a.pages, a.positions, a.parts, a.sums, a.state);
    for (int row = 0; row < a.rows; ++row)
      for (int page = 0; page <= a.positions[row] / kPage; ++page)
        need_device("decode_attend", a.pages[static_cast<int64_t>(row) * a.pages_stride + page]);
    decode_attend(a);
  };
  ops.repack = [](const RepackArgs& a) {
    need_device("repack", a.from, a.to);
    repack(a);
  };
}

}  // namespace

const CudaOps& simt_device() {
  static const CudaOps ops = [] {
    CudaOps made = simt_ops();
    add_memory(made);
    add_products(made);
    add_attention(made);
    return made;
  }();
  return ops;
}

}  // namespace runahead::cuda
