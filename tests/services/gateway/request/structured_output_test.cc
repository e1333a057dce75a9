#include "services/gateway/request/structured_output.h"

#include <gtest/gtest.h>

namespace runahead {
namespace {

Result<std::string> of_schema(const std::string& schema) {
  return structured_grammar(R"({"response_format":{"type":"json_schema","json_schema":{"schema":)" + schema + "}}}",
                            "/response_format");
}

TEST(StructuredOutput, KeepsTheOrderOfTheFields) {
  EXPECT_EQ(of_schema(R"({"properties":{"z":{},"a":{}}})").value(),
            R"({"json_schema":{"properties":{"z":{},"a":{}}}})");
  EXPECT_EQ(structured_grammar(R"({"response_format":{"type":"json_object"}})", "/response_format").value(),
            R"({"json_object":true})");
}

TEST(StructuredOutput, ReadsTheFormatOfAResponse) {
  const auto grammar =
      structured_grammar(R"({"text":{"format":{"type":"json_schema","schema":{"type":"null"}}}})", "/text/format");
  EXPECT_EQ(grammar.value(), R"({"json_schema":{"type":"null"}})");
}

TEST(StructuredOutput, NamesThePlaceOfWhatItRefuses) {
  const auto refused = of_schema(R"({"properties":{"a":{"type":"number","multipleOf":3}}})");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().param, "response_format.json_schema.schema.properties.a.multipleOf");
  EXPECT_EQ(refused.error().message,
            "'response_format.json_schema.schema.properties.a.multipleOf' other than 1 is not supported");
  EXPECT_EQ(of_schema(R"({"$ref":"#"})").error().param, "response_format.json_schema.schema");
}

}  // namespace
}  // namespace runahead
