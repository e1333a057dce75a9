// Targets, queries and origins as they come, odd ones included.
#include "services/http/http_target.h"

#include <gtest/gtest.h>

namespace runahead {
namespace {

TEST(HttpTarget, PathAndQueryAreTakenApartAndTheRestIsNoPath) {
  const auto split = [](std::string_view text) {
    const HttpTarget target = split_target(text);
    return target.path + " " + target.query;
  };
  EXPECT_EQ(split("/livez"), "/livez ");
  EXPECT_EQ(split("/livez?a[]=%zz?"), "/livez a[]=%zz?") << "as sent";
  EXPECT_EQ(split("//x/livez"), "//x/livez ") << "no host";
  EXPECT_EQ(split("http://x"), "/ ");
  EXPECT_EQ(split("HTTPS://x:1/a%2Fb?c"), "/a%2Fb c");
  EXPECT_EQ(split("http://x/metrics?match[]={a}&b=%zz"), "/metrics match[]={a}&b=%zz") << "as in a path";
  EXPECT_EQ(split("http://x?y"), "/ y");
  EXPECT_EQ(split("*"), "* ");
  for (const std::string text : {"", "?", "livez", "http:/livez", "http://[::1/livez", "http://x#y", "ftp://x/livez"})
    EXPECT_EQ(split(text), text + " ");
}

TEST(HttpTarget, EscapesAreDecodedAndBrokenOnesStay) {
  EXPECT_EQ(percent_decoded("a%2Fb+c"), "a/b+c");
  EXPECT_EQ(percent_decoded("%00"), std::string(1, '\0'));
  EXPECT_EQ(percent_decoded("caf%C3%A9\xff"), "caf\xC3\xA9\xff");
  for (const char* broken : {"%", "%z", "%zz", "%6", "a%2Fb%"}) EXPECT_EQ(percent_decoded(broken), broken);
}

TEST(HttpTarget, QueriesAreParamsInOrder) {
  const auto parsed = [](std::string_view text) {
    const auto params = parse_query(text);
    if (!params) return std::string(name(params.error().code));
    std::string all;
    for (const QueryParam& param : *params) all += param.name + "=" + param.value + ";";
    return all;
  };
  EXPECT_EQ(parsed(""), "");
  EXPECT_EQ(parsed("limit=5&after=a%2Db&"), "limit=5;after=a-b;");
  EXPECT_EQ(parsed("verbose"), "verbose=;");
  EXPECT_EQ(parsed("&"), "=;=;");
  EXPECT_EQ(parsed("a+b=c=d&&=e"), "a+b=c=d;=;=e;");
  for (const char* odd : {"a=%zz", "a[]=1", "caf\xc3\xa9"}) EXPECT_EQ(parsed(odd), "invalid_argument") << odd;
}

TEST(HttpTarget, OriginsHaveNoPath) {
  for (const char* origin : {"https://a.example", "http://localhost:3000", "http://[::1]:80", "chrome-extension://abc"})
    EXPECT_TRUE(is_origin(origin)) << origin;
  for (const char* other :
       {"", "*", "null", "a.example", "http://", "http://a/", "http://a?x", "http://a#x", "http://a b"})
    EXPECT_FALSE(is_origin(other)) << other;
}

}  // namespace
}  // namespace runahead
