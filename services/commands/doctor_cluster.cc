#include "services/commands/doctor_cluster.h"

#include <fmt/format.h>

#include <algorithm>
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

// Speeds of ready prefill workers, by device.
std::map<std::string, std::vector<double>> known_speeds(const json& cluster) {
  std::map<std::string, std::vector<double>> speeds;
  for (const json& worker : cluster.at("workers"))
    if (is_ready(worker) && is_prefill(worker) && worker.at("tokens_per_second").get<double>() > 0)
      speeds[worker.at("device").get<std::string>()].push_back(worker.at("tokens_per_second"));
  return speeds;
}

// The way into a decode worker is a link like others: a planner that knows which worker sends slowly makes it the last rank.
std::vector<double> known_links(const json& cluster) {
  std::vector<double> links;
  for (const json& worker : cluster.at("workers"))
    if (is_ready(worker) && worker.at("link_bytes_per_second").get<double>() > 0)
      links.push_back(worker.at("link_bytes_per_second"));
  return links;
}

Finding slow_worker(const json& worker, double usual) {
  return {"worker", Finding::Grade::kSlow,
          fmt::format("{} computes {:.0f} tokens/s, others of its kind ({}) {:.0f}: plans give it less; look for other "
                      "load and for a CPU limit below its threads",
                      worker.at("name").get<std::string>(), worker.at("tokens_per_second").get<double>(),
                      worker.at("device").get<std::string>(), usual)};
}

Finding slow_link(const json& worker, double usual) {
  return {"link", Finding::Grade::kSlow,
          fmt::format("K/V reaches {} ({}) at {:.1f} MB/s, the others at {:.1f}{}: look at its network and at its "
                      "sender's, or have them advertise the faster one (--advertise)",
                      worker.at("name").get<std::string>(), worker.at("transport").get<std::string>(),
                      worker.at("link_bytes_per_second").get<double>() / 1e6, usual / 1e6,
                      is_prefill(worker) ? "" : ", which delays the second token")};
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

std::vector<Finding> findings_of_cluster(const json& cluster) {
  std::vector<Finding> findings = {readiness(cluster)};
  const auto speeds = known_speeds(cluster);
  const std::vector<double> links = known_links(cluster);
  const double usual_link = links.empty() ? 0 : median(links);
  for (const json& worker : cluster.at("workers")) {
    if (!is_ready(worker)) continue;
    const auto group = is_prefill(worker) ? speeds.find(worker.at("device").get<std::string>()) : speeds.end();
    const double usual = group == speeds.end() ? 0 : median(group->second);
    const double link = worker.at("link_bytes_per_second");
    const bool computes_slowly = worker.at("tokens_per_second").get<double>() < kSlowWorker * usual;
    const bool is_reached_slowly = link > 0 && link < kSlowLink * usual_link;
    if (computes_slowly) findings.push_back(slow_worker(worker, usual));
    if (is_reached_slowly) findings.push_back(slow_link(worker, usual_link));
    if (!computes_slowly && !is_reached_slowly) findings.push_back(fine(worker));
  }
  return findings;
}

}  // namespace runahead
