// The header traceparent, by W3C's Trace Context, and what becomes of one on its way through the server.
#include "services/http/trace_context.h"

#include <set>

#include "tests/services/gateway/gateway_fixture.h"

namespace runahead {
namespace {

const std::string kTrace = "4bf92f3577b34da6a3ce929d0e0e4736", kSpan = "00f067aa0ba902b7";
const std::string kHeader = "00-" + kTrace + "-" + kSpan + "-01";

TEST(Traceparent, IsReadAndWritten) {
  auto trace = parse_traceparent(kHeader);
  ASSERT_TRUE(trace);
  EXPECT_EQ(trace->trace_id, kTrace);
  EXPECT_EQ(trace->parent_span_id, kSpan);
  EXPECT_TRUE(trace->sampled);
  trace->span_id = "1111111111111111";
  EXPECT_EQ(trace->traceparent(), "00-" + kTrace + "-1111111111111111-01");
}

TEST(Traceparent, OnlyTheFlagSampledIsKnown) {
  for (const auto& [flags, sampled] :
       {std::pair("00", false), {"02", false}, {"03", true}, {"fe", false}, {"ff", true}})
    EXPECT_EQ(parse_traceparent("00-" + kTrace + "-" + kSpan + "-" + flags)->sampled, sampled) << flags;
}

TEST(Traceparent, WhatIsMalformedIsNone) {
  const std::string zeros(32, '0');
  for (const std::string& bad :
       {std::string(), std::string("00"), kHeader + "0", kHeader + "-00", "ff" + kHeader.substr(2),
        "0x" + kHeader.substr(2), "00-" + zeros + "-" + kSpan + "-01", "00-" + kTrace + "-" + zeros.substr(16) + "-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-" + kSpan + "-01", "00_" + kTrace + "-" + kSpan + "-01",
        "00-" + kTrace + "_" + kSpan + "-01", "00-" + kTrace + "-" + kSpan + "_01",
        "00-" + kTrace + "-" + kSpan + "-0g", "00-" + kTrace.substr(1) + "--" + kSpan + "-01", " " + kHeader})
    EXPECT_FALSE(parse_traceparent(bad)) << bad;
}

TEST(Traceparent, OfALaterVersionWhatIsKnownIsRead) {
  EXPECT_EQ(parse_traceparent("cc" + kHeader.substr(2))->trace_id, kTrace);
  EXPECT_EQ(parse_traceparent("cc" + kHeader.substr(2) + "-what-comes")->parent_span_id, kSpan);
  EXPECT_FALSE(parse_traceparent("cc" + kHeader.substr(2) + ".what-comes"));
}

class TraceparentTest : public GatewayTest {
 protected:
  // What the answer's header says, as a caller's would be read.
  static TraceContext traced(const RawAnswer& answer) {
    const auto trace = parse_traceparent(answer.headers.at("traceparent"));
    EXPECT_TRUE(trace) << answer.headers.at("traceparent");
    return trace.value_or(TraceContext{});
  }
};

TEST_F(TraceparentTest, EveryAnswerCarriesTheCallersTraceWithASpanOfOurs) {
  std::set<std::string> spans;
  const std::string header = "traceparent: " + kHeader + "\r\n";
  for (const RawAnswer& answer :
       {post("/v1/completions", R"({"prompt":"a"})", header),
        post("/v1/completions", R"({"prompt":"a","stream":true})", header), post("/v1/completions", "{", header),
        get("/v1/models", header), get("/nothing", header), get("/livez", header)}) {
    const TraceContext trace = traced(answer);
    EXPECT_EQ(trace.trace_id, kTrace);
    EXPECT_TRUE(trace.sampled);
    spans.insert(trace.parent_span_id);
  }
  EXPECT_EQ(spans.size(), 6u);
  EXPECT_FALSE(spans.contains(kSpan));
  EXPECT_EQ(inference_.requests().back().trace_id, kTrace);
}

TEST_F(TraceparentTest, WithoutOneOrWithMoreATraceBegins) {
  std::set<std::string> traces = {kTrace};
  const std::string header = "traceparent: " + kHeader + "\r\n";
  for (const RawAnswer& answer :
       {get("/v1/models"), get("/v1/models", "traceparent: nonsense\r\n"), get("/v1/models", header + header),
        client().request("GET /v1/models HTTP/1.1\r\n" + header + "\r\n")}) {
    const TraceContext trace = traced(answer);
    EXPECT_FALSE(trace.sampled) << "nobody records what begins here";
    EXPECT_TRUE(traces.insert(trace.trace_id).second);
  }
}

TEST_F(TraceparentTest, TheListOfRequestsNamesTheTrace) {
  post("/v1/completions", R"({"prompt":"a"})", "traceparent: " + kHeader + "\r\n");
  EXPECT_EQ(get("/v1/requests").json()["data"][0]["trace_id"], kTrace);
}

}  // namespace
}  // namespace runahead
