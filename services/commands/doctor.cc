// runahead doctor: what this machine can do for Runahead, and what stands in the way; --url: the same of a cluster that runs.
// The exit code is that of the first thing that does.
#include <fmt/format.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "base/machine_limits.h"
#include "model/cuda_transformer/cuda_stream.h"
#include "model/tokenizer/tokenizer.h"
#include "services/commands/api_client.h"
#include "services/commands/commands.h"
#include "services/commands/doctor_cluster.h"
#include "services/commands/input.h"
#include "services/commands/output.h"
#include "services/engine/cuda_library.h"
#include "services/engine/engine_loading.h"
#include "services/engine/kernel_timings.h"
#include "services/engine/model_path.h"
#include "services/http/http_client.h"
#include "services/process/process.h"
#include "services/version.h"
#include "transport/kv/select_transport.h"
#include "transport/tcp_socket.h"

namespace runahead {
namespace {

using nlohmann::json;

constexpr std::chrono::seconds kClusterTimeout{10};

struct DoctorOptions {
  std::string model = "smollm2";
  std::vector<std::string> ports = {"127.0.0.1:7070", "127.0.0.1:8000"};
  std::string url, api_key;
};

Finding ok(const std::string& what, std::string detail) { return {what, Finding::Grade::kOk, std::move(detail)}; }

Finding failed(const std::string& what, const Error& error, const std::string& before = "") {
  return {what, Finding::Grade::kFailed, before + error.message, error.code};
}

// What bounds this process, and which bound decides.
std::vector<Finding> machine() {
  const MachineLimits limits = machine_limits();
  std::string memory, cpus;
  for (const MemoryBound& bound : limits.memory)
    memory += fmt::format("{} {}, {} free; ", bound.what, to_text_bytes(bound.limit_bytes),
                          to_text_bytes(bound.free_bytes()));
  for (const CpuBound& bound : limits.cpus) cpus += fmt::format("{} {:.3g}; ", bound.what, bound.cpus);
  const MemoryShare share = default_kv_share(limits, {});
  memory += fmt::format("K/V pages take {} at most by default, less what the weights need ({} decides)",
                        to_text_bytes(share.bytes), share.by->what);
  cpus += fmt::format("{} compute threads by default ({} decides)", limits.usable_cpus(), limits.fewest_cpus().what);
  return {ok("machine", fmt::format("{}, {} cores", processor_name(), std::thread::hardware_concurrency())),
          ok("memory", memory), ok("cpus", cpus)};
}

std::vector<Finding> kernels() {
  const KernelTimings& known = prepare_kernels();
  std::vector<Finding> findings;
  for (const KernelTiming& timing : known.timings) {
    const std::string rates =
        timing.giga_ops_per_second == 0
            ? "not measured: slower than all others"
            : fmt::format("{:6.1f} GOP/s a core, {:6.1f} in products{}", timing.giga_ops_per_second,
                          timing.gemm_giga_ops_per_second, timing.chosen ? "  chosen" : "");
    findings.push_back(ok("kernels", fmt::format("{:>10} {:5} {}", timing.isa, name(timing.mode), rates)));
  }
  findings.push_back(ok("kernels", known.measured ? "measured now; kept in " + known.file.string()
                                                  : "from " + known.file.string() + "; delete it to measure anew"));
  findings.push_back(ok("compute", fmt::format("auto is {}", name(fastest_mode()))));
  const auto gpu = open_cuda(/*device=*/0);
  findings.push_back(
      ok("gpu", gpu ? fmt::format("{}; products: {}", (*gpu)->device, (*gpu)->gemm_text()) : gpu.error().message));
  return findings;
}

Finding model(const std::string& short_name) {
  const auto path = find_model(short_name);
  if (!path) return failed("model", path.error());
  const auto file = Gguf::open(*path);
  if (!file) return failed("model", file.error());
  const auto config = read_model_config(*file);
  if (!config) return failed("model", config.error());
  const auto tokenizer = Tokenizer::load(*file);
  if (!tokenizer) return failed("model", tokenizer.error());
  const ModelShape& s = config->shape;
  return ok("model", fmt::format("{}: {}, {} layers, width {}, {}/{} heads, context {}, vocabulary {}", path->string(),
                                 s.architecture, s.num_layers, s.model_dim, s.num_heads, s.num_kv_heads, s.context_len,
                                 s.vocab_size));
}

// That there is no GPU, or nothing that moves its pages, stands in nobody's way.
asio::awaitable<void> look_at_transport(std::string name, AsioClock& clock, Finding& finding) {
  const asio::any_io_executor executor = co_await asio::this_coro::executor;
  KvTransportOptions options;
  options.incarnation = random_seed() | 1;
  if (moves_device_pages(name)) {
    const auto gpu = open_cuda(/*device=*/0);
    if (gpu) options.device = device_access(**gpu);
  }
  const auto transport = make_kv_transport(name, std::move(options), executor, clock);
  finding = transport                  ? ok("transport", name + ": " + (*transport)->describe())
            : moves_device_pages(name) ? ok("transport", name + ": " + transport.error().message)
                                       : failed("transport", transport.error(), name + ": ");
  if (transport) co_await (*transport)->shutdown();
}

Finding transport(const std::string& name) {
  asio::io_context io;
  AsioClock clock;
  Finding finding;
  asio::co_spawn(io, look_at_transport(name, clock, finding), asio::detached);
  io.run();
  return finding;
}

Finding port(const std::string& address) {
  asio::io_context io;
  const auto host_port = parse_host_port(address);
  if (!host_port) return failed("port", host_port.error());
  const auto acceptor = listen_tcp(io.get_executor(), *host_port, true);
  return acceptor ? ok("port", address + " is free") : failed("port", acceptor.error(), address + ": ");
}

std::vector<Finding> findings_of(const DoctorOptions& options) {
  std::vector<Finding> findings = machine();
  for (Finding& finding : kernels()) findings.push_back(std::move(finding));
  findings.push_back(model(options.model));
  for (const KvTransportKind& kind : kv_transports())
    if (kind.between_processes) findings.push_back(transport(std::string(kind.name)));
  for (const std::string& address : options.ports) findings.push_back(port(address));
  return findings;
}

std::vector<Finding> findings_at(const DoctorOptions& options) {
  const ClientOptions api{options.url, options.api_key};
  const auto cluster = ask(api, "GET", "/v1/cluster", nullptr, kClusterTimeout);
  if (!cluster) return {failed("cluster", cluster.error())};
  const auto metrics = HttpClient(api.url, kClusterTimeout, api.api_key).get("/metrics");
  if (!metrics) return {failed("cluster", metrics.error())};
  if (metrics->status != 200) return {failed("cluster", error_of(*metrics))};
  try {
    return findings_of_cluster(*cluster, links_in(metrics->body));
  } catch (const json::exception&) {
    return {
        failed("cluster", {ErrorCode::kUnavailable, "what answers at " + api.url + " is no coordinator of Runahead"})};
  }
}

Result<void> report(const std::vector<Finding>& findings, const CommonOptions& common) {
  static constexpr const char* kMarks[] = {"ok  ", "slow", "FAIL"};
  json out = json::array();
  std::optional<ErrorCode> first;  // what stands in the way and comes first gives the exit code
  for (const Finding& finding : findings) {
    const bool failed = finding.grade == Finding::Grade::kFailed;
    if (failed && !first) first = finding.code;
    out.push_back({{"what", finding.what},
                   {"ok", !failed},
                   {"slow", finding.grade == Finding::Grade::kSlow},
                   {"detail", finding.detail}});
    if (!common.json())
      std::printf("%s %-10s %s\n", kMarks[static_cast<int>(finding.grade)], finding.what.c_str(),
                  finding.detail.c_str());
  }
  if (common.json()) print_json({{"ok", !first}, {"findings", out}});
  if (first) return fail(*first, "doctor found something that stands in the way; see the lines marked FAIL");
  return {};
}

Result<void> doctor(const DoctorOptions& options, const CommonOptions& common) {
  std::vector<Finding> findings = {ok("version", fmt::format("runahead {} ({})", kVersion, kRevision))};
  for (Finding& finding : options.url.empty() ? findings_of(options) : findings_at(options))
    findings.push_back(std::move(finding));
  return report(findings, common);
}

}  // namespace

void add_doctor(CommandLine& line) {
  auto options = std::make_shared<DoctorOptions>();
  CLI::App* command = line.add("doctor", "check what this machine can do, and what stands in the way",
                               [options](const CommonOptions& common) { return doctor(*options, common); });
  add_model_flag(*command, options->model);
  command->add_option("--ports", options->ports, "host:port that must be free")->delimiter(',');
  command->add_option("--url", options->url,
                      "host:port of a cluster's API, to look for slow workers and links; default: none");
  add_api_key_flag(*command, options->api_key);
}

}  // namespace runahead
