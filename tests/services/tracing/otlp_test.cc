// Spans as OTLP's JSON has them, and where they are sent. tests/e2e/test_tracing.py has a collector.
#include <gtest/gtest.h>

#include "services/tracing/otlp_exporter.h"

namespace runahead {
namespace {

TEST(OtlpEndpoint, IsAnAddressAndAPath) {
  for (const auto& [url, address, target] : {std::tuple("http://c:4318", "c:4318", "/v1/traces"),
                                             {"http://c:4318/", "c:4318", "/v1/traces"},
                                             {"http://[::1]:4318/otlp/", "[::1]:4318", "/otlp/v1/traces"}}) {
    const auto endpoint = parse_otlp_endpoint(url);
    ASSERT_TRUE(endpoint) << endpoint.error().message;
    EXPECT_EQ(endpoint->address, address);
    EXPECT_EQ(endpoint->target, target);
  }
  for (const char* bad : {"", "c:4318", "https://c:4318", "http://", "http://c", "http://c:0x", "http://c:4318/a b",
                          "http://c:4318/?x", "http://c:99999"}) {
    const auto endpoint = parse_otlp_endpoint(bad);
    ASSERT_FALSE(endpoint) << bad;
    EXPECT_EQ(endpoint.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(endpoint.error().message.find("http://HOST:4318"), std::string::npos) << "it says what to write";
  }
}

TEST(Otlp, NumbersOf64BitsAreTextAndAFailureIsAStatus) {
  SeededRng rng(1);
  auto request = std::make_shared<TracedRequest>();
  request->kind = "chat";
  request->model = "toy";
  request->trace = {
      .trace_id = std::string(32, 'a'), .span_id = std::string(16, 'b'), .parent_span_id = "", .sampled = true};
  request->begin_unix_ns = 1'700'000'000'000'000'001;
  request->elapsed_seconds = 2;
  request->error = Error{ErrorCode::kWorkerLost, "lost", ""};
  const std::shared_ptr<const TracedRequest> all[] = {request};
  const OtlpBatch batch = otlp_batch({}, all, rng);
  EXPECT_EQ(batch.spans, 1);
  const auto& span = batch.body["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
  EXPECT_EQ(span["name"], "chat toy");
  EXPECT_EQ(span["startTimeUnixNano"], "1700000000000000001");
  EXPECT_EQ(span["endTimeUnixNano"], "1700000002000000001");
  EXPECT_FALSE(span.contains("parentSpanId")) << "the trace begins here";
  EXPECT_EQ(span["status"]["code"], 2);
  bool said = false;
  for (const auto& attribute : span["attributes"])
    said |= attribute["key"] == "error.type" && attribute["value"]["stringValue"] == "worker_lost";
  EXPECT_TRUE(said) << span;
}

}  // namespace
}  // namespace runahead
