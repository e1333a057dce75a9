#include "services/commands/doctor_cluster.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace runahead {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using Grade = Finding::Grade;

json worker(const std::string& name, double speed, double link, const std::string& device = "cpu") {
  return {{"name", name},
          {"role", "prefill"},
          {"state", "ready"},
          {"device", device},
          {"transport", "tcp"},
          {"tokens_per_second", speed},
          {"link_bytes_per_second", link}};
}

// And a decode worker.
json cluster(std::vector<json> workers) {
  workers.push_back(worker("decode", 0, 0));
  workers.back()["role"] = "decode";
  return {{"running", 1}, {"waiting", 2}, {"workers", std::move(workers)}};
}

TEST(DoctorCluster, EqualWorkersAreFine) {
  const auto findings =
      findings_of_cluster(cluster({worker("a", 1000, 2e8), worker("b", 900, 0), worker("c", 1050, 1.5e8)}), {});
  ASSERT_EQ(findings.size(), 5u);
  for (const Finding& finding : findings) EXPECT_EQ(finding.grade, Grade::kOk) << finding.detail;
  EXPECT_EQ(findings[0].detail, "3 prefill and 1 decode workers are ready, 1 requests run, 2 wait");
  EXPECT_EQ(findings[1].detail, "a computes 1000 tokens/s, K/V reaches it at 200.0 MB/s");
  EXPECT_THAT(findings[2].detail, HasSubstr("not measured"));
  EXPECT_THAT(findings[4].detail, HasSubstr("decode decodes, its link is not measured"));
}

TEST(DoctorCluster, NamesTheSlowWorkerAndTheSlowLink) {
  const std::vector<MeasuredLink> links = {
      {"a", "b", "tcp", 2e8}, {"b", "c", "tcp", 5e7}, {"c", "d", "ucx", 2.2e8}, {"d", "decode", "tcp", 1.9e8}};
  const auto findings = findings_of_cluster(
      cluster({worker("a", 1000, 2e8), worker("b", 600, 2e8), worker("c", 1000, 5e7), worker("d", 1000, 2e8)}), links);
  ASSERT_EQ(findings.size(), 7u);
  EXPECT_EQ(findings[2].grade, Grade::kSlow);
  EXPECT_THAT(findings[2].detail, HasSubstr("b computes 600 tokens/s, others of its kind (cpu) 1000"));
  EXPECT_EQ(findings[6].grade, Grade::kSlow);
  EXPECT_EQ(findings[6].what, "link");
  EXPECT_THAT(findings[6].detail, HasSubstr("K/V goes from b to c (tcp) at 50.0 MB/s, over other links at 200.0"));
}

TEST(DoctorCluster, ReadsLinksFromMetrics) {
  const auto links = links_in(
      "# HELP runahead_link_bandwidth_bytes_per_second K/V\n"
      "runahead_link_bandwidth_bytes_per_second{dst=\"d\",src=\"a \\\"b\\\" \\\\\",transport=\"tcp\"} 2.5e+07\n"
      "runahead_link_bandwidth_bytes_per_second{dst=\"d\",src=\"c\",transport=\"tcp\"} nonsense\n"
      "runahead_link_rtt_seconds{dst=\"d\",src=\"a\",transport=\"tcp\"} 1\n"
      "runahead_link_bandwidth_bytes_per_second{");
  ASSERT_EQ(links.size(), 1u);
  EXPECT_EQ(links[0].from, "a \"b\" \\");
  EXPECT_EQ(links[0].to, "d");
  EXPECT_EQ(links[0].transport, "tcp");
  EXPECT_EQ(links[0].bytes_per_second, 2.5e7);
}

TEST(DoctorCluster, ASlowerDeviceIsNoSlowWorker) {
  for (const Finding& finding :
       findings_of_cluster(cluster({worker("a", 1000, 0), worker("b", 300, 0, "old cpu")}), {}))
    EXPECT_EQ(finding.grade, Grade::kOk) << finding.detail;
}

TEST(DoctorCluster, NobodyReadyFails) {
  json waiting = worker("a", 1000, 0);
  waiting["state"] = "waiting";
  const auto findings = findings_of_cluster(cluster({waiting}), {});
  ASSERT_EQ(findings.size(), 2u);
  EXPECT_EQ(findings[0].grade, Grade::kFailed);
  EXPECT_THAT(findings[0].detail,
              HasSubstr("0 prefill and 1 decode workers are ready, 1 requests run, 2 wait; a is waiting"));
}

}  // namespace
}  // namespace runahead
