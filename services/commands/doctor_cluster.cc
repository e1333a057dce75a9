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

bool is_ready_prefill(const json& worker) { return worker.at("role") == "prefill" && worker.at("state") == "ready"; }

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

// Speeds of workers of one device, and of all links: the values of `field` that are known, by group.
std::map<std::string, std::vector<double>> known(const json& cluster, const char* field, bool by_device) {
  std::map<std::string, std::vector<double>> values;
  for (const json& worker : cluster.at("workers"))
    if (is_ready_prefill(worker) && worker.at(field).get<double>() > 0)
      values[by_device ? worker.at("device").get<std::string>() : ""].push_back(worker.at(field));
  return values;
}

}  // namespace

std::vector<Finding> findings_of_cluster(const json& cluster) {
  std::vector<Finding> findings = {readiness(cluster)};
  const auto speeds = known(cluster, "tokens_per_second", true);
  const auto links = known(cluster, "link_bytes_per_second", false);
  for (const json& worker : cluster.at("workers")) {
    if (!is_ready_prefill(worker)) continue;
    const auto name = worker.at("name").get<std::string>(), device = worker.at("device").get<std::string>();
    const double speed = worker.at("tokens_per_second"), link = worker.at("link_bytes_per_second");
    const auto group = speeds.find(device);
    const double usual = group == speeds.end() ? 0 : median(group->second);
    const double usual_link = links.empty() ? 0 : median(links.begin()->second);
    const bool slow = speed < kSlowWorker * usual, slow_link = link > 0 && link < kSlowLink * usual_link;
    if (slow)
      findings.push_back(
          {"worker", Finding::Grade::kSlow,
           fmt::format("{} computes {:.0f} tokens/s, others of its kind ({}) {:.0f}: plans give it less; look for "
                       "other load and for a CPU limit below its threads",
                       name, speed, device, usual)});
    if (slow_link)
      findings.push_back(
          {"link", Finding::Grade::kSlow,
           fmt::format("K/V reaches {} ({}) at {:.1f} MB/s, the others at {:.1f}: look at its network, or have it "
                       "advertise the faster one (--advertise)",
                       name, worker.at("transport").get<std::string>(), link / 1e6, usual_link / 1e6)});
    if (!slow && !slow_link)
      findings.push_back({"worker", Finding::Grade::kOk,
                          fmt::format("{} computes {:.0f} tokens/s{}", name, speed,
                                      link > 0 ? fmt::format(", K/V reaches it at {:.1f} MB/s", link / 1e6)
                                               : "; its link is not measured before a long prompt")});
  }
  return findings;
}

}  // namespace runahead
