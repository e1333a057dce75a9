#include "services/commands/doctor_cluster.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>

namespace runahead {
namespace {

using nlohmann::json;

// Of the median of its like. The planner evens out less than this, and machines of one kind differ by some percent.
constexpr double kSlowWorker = 0.8;
// A link has to be far slower than the others before a chain waits for it.
constexpr double kSlowLink = 0.5;

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

bool is_prefill(const json& worker) { return worker.at("role") == "prefill"; }
bool is_ready(const json& worker) { return worker.at("state") == "ready"; }

Finding readiness(const json& cluster) {
  size_t prefill = 0, decode = 0;
  std::string others;
  for (const json& worker : cluster.at("workers")) {
    if (worker.at("state") == "ready") ++(worker.at("role") == "prefill" ? prefill : decode);
    else
      others += fmt::format("; {} is {}", worker.at("name").get<std::string>(), worker.at("state").get<std::string>());
  }
  const std::string text =
      fmt::format("{} prefill and {} decode workers are ready, {} requests run, {} wait{}", prefill, decode,
                  cluster.at("running").get<int>(), cluster.at("waiting").get<int>(), others);
  const bool able = prefill > 0 && decode > 0;
  return {"cluster", able ? Finding::Grade::kOk : Finding::Grade::kFailed, text, ErrorCode::kUnavailable};
}

// The value of a label in a line of metrics, with its escapes undone.
std::string label_in(std::string_view line, std::string_view name) {
  const std::string key = std::string(name) + "=\"";
  size_t at = line.find(key);
  if (at == std::string_view::npos || (line[at - 1] != '{' && line[at - 1] != ',')) return {};
  std::string value;
  for (at += key.size(); at < line.size() && line[at] != '"'; ++at) {
    if (line[at] == '\\' && at + 1 < line.size()) value += line[++at] == 'n' ? '\n' : line[at];
    else value += line[at];
  }
  return value;
}

// Speeds of ready prefill workers, by device.
std::map<std::string, std::vector<double>> known_speeds(const json& cluster) {
  std::map<std::string, std::vector<double>> speeds;
  for (const json& worker : cluster.at("workers"))
    if (is_ready(worker) && is_prefill(worker) && worker.at("tokens_per_second").get<double>() > 0)
      speeds[worker.at("device").get<std::string>()].push_back(worker.at("tokens_per_second"));
  return speeds;
}

double usual_speed(const std::vector<MeasuredLink>& links) {
  std::vector<double> speeds;
  for (const MeasuredLink& link : links) speeds.push_back(link.bytes_per_second);
  return speeds.empty() ? 0 : median(std::move(speeds));
}

Finding slow_worker(const json& worker, double usual) {
  return {"worker", Finding::Grade::kSlow,
          fmt::format("{} computes {:.0f} tokens/s, others of its kind ({}) {:.0f}: plans give it less; look for other "
                      "load and for a CPU limit below its threads",
                      worker.at("name").get<std::string>(), worker.at("tokens_per_second").get<double>(),
                      worker.at("device").get<std::string>(), usual)};
}

Finding slow_link(const MeasuredLink& link, double usual) {
  return {"link", Finding::Grade::kSlow,
          fmt::format(
              "K/V goes from {} to {} ({}) at {:.1f} MB/s, over other links at {:.1f}: look at the network of both, "
              "or have them advertise the faster one (--advertise)",
              link.from, link.to, link.transport, link.bytes_per_second / 1e6, usual / 1e6)};
}

Finding fine(const json& worker) {
  const double link = worker.at("link_bytes_per_second");
  const std::string reached = link > 0 ? fmt::format("K/V reaches it at {:.1f} MB/s", link / 1e6)
                                       : "its link is not measured before a long prompt";
  const auto name = worker.at("name").get<std::string>();
  if (!is_prefill(worker)) return {"worker", Finding::Grade::kOk, fmt::format("{} decodes, {}", name, reached)};
  return {"worker", Finding::Grade::kOk,
          fmt::format("{} computes {:.0f} tokens/s{}{}", name, worker.at("tokens_per_second").get<double>(),
                      link > 0 ? ", " : "; ", reached)};
}

}  // namespace

std::vector<MeasuredLink> links_in(std::string_view metrics) {
  constexpr std::string_view kName = "runahead_link_bandwidth_bytes_per_second{";
  std::vector<MeasuredLink> links;
  for (size_t begin = 0; begin < metrics.size();) {
    const size_t end = std::min(metrics.find('\n', begin), metrics.size());
    const std::string_view line = metrics.substr(begin, end - begin);
    begin = end + 1;
    if (!line.starts_with(kName)) continue;
    const std::string value(line.substr(line.rfind(' ') + 1));
    MeasuredLink link{.from = label_in(line, "src"),
                      .to = label_in(line, "dst"),
                      .transport = label_in(line, "transport"),
                      .bytes_per_second = std::strtod(value.c_str(), nullptr)};
    if (link.bytes_per_second > 0) links.push_back(std::move(link));
  }
  return links;
}

std::vector<Finding> findings_of_cluster(const json& cluster, const std::vector<MeasuredLink>& links) {
  std::vector<Finding> findings = {readiness(cluster)};
  const auto speeds = known_speeds(cluster);
  for (const json& worker : cluster.at("workers")) {
    if (!is_ready(worker)) continue;
    const auto group = is_prefill(worker) ? speeds.find(worker.at("device").get<std::string>()) : speeds.end();
    const double usual = group == speeds.end() ? 0 : median(group->second);
    const bool is_slow = worker.at("tokens_per_second").get<double>() < kSlowWorker * usual;
    findings.push_back(is_slow ? slow_worker(worker, usual) : fine(worker));
  }
  const double usual = usual_speed(links);
  for (const MeasuredLink& link : links)
    if (link.bytes_per_second < kSlowLink * usual) findings.push_back(slow_link(link, usual));
  return findings;
}

}  // namespace runahead
