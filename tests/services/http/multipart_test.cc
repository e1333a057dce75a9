#include "services/http/multipart.h"

#include <gtest/gtest.h>

namespace runahead {
namespace {

constexpr const char* kType = "multipart/form-data; boundary=XX";

std::string part(const std::string& disposition, const std::string& content) {
  return "--XX\r\nContent-Disposition: form-data; " + disposition + "\r\n\r\n" + content + "\r\n";
}

TEST(Multipart, PartsComeInOrderWithTheirBytes) {
  const std::string bytes("\r\n--X\r\n--Y--\0\r\n", 15);
  const std::string body = "preamble\r\n" + part("name=\"purpose\"", "batch") +
                           part("name=file; filename=\"a b;c.jsonl\"", bytes) +
                           "--XX \t\r\nContent-Type: "
                           "text/plain\r\ncontent-disposition:form-data;name=\"empty\"\r\n\r\n\r\n--XX--\r\nepilogue";
  const auto parts = parse_form(kType, body);
  ASSERT_TRUE(parts) << parts.error().message;
  ASSERT_EQ(parts->size(), 3u);
  EXPECT_EQ((*parts)[0].name, "purpose");
  EXPECT_EQ((*parts)[0].content, "batch");
  EXPECT_FALSE((*parts)[0].filename);
  EXPECT_EQ((*parts)[1].filename, "a b;c.jsonl");
  EXPECT_EQ((*parts)[1].content, bytes);
  EXPECT_EQ((*parts)[2].name, "empty");
  EXPECT_EQ((*parts)[2].content, "");
}

TEST(Multipart, NamesAreUnderstoodAsClientsWriteThem) {
  const auto filename = [](const std::string& disposition) {
    const std::string body = part(disposition, "x") + "--XX--";
    const auto parts = parse_form(kType, body);
    return parts ? parts->front().filename.value_or("none") : parts.error().message;
  };
  EXPECT_EQ(filename(R"(name="file"; filename="a\"b.jsonl")"), "a\"b.jsonl");
  EXPECT_EQ(filename("name=\"file\"; filename=\"caf\xc3\xa9\""), "caf\xc3\xa9");
  EXPECT_EQ(filename("name=\"file\"; filename*=utf-8''caf%C3%A9"), "caf\xc3\xa9");
  EXPECT_EQ(filename("Name=\"file\"; FileName=\"../../etc/passwd\""), "../../etc/passwd") << "a name, never a path";
}

TEST(Multipart, BoundariesAreQuotedOrNot) {
  for (const char* type : {"multipart/form-data; boundary=\"XX\"", "multipart/form-data;boundary=XX; charset=utf-8"})
    EXPECT_TRUE(parse_form(type, part("name=a", "b") + "--XX--")) << type;
  for (const std::string& type :
       {std::string("multipart/form-data"), std::string("multipart/form-data; boundary="),
        std::string("multipart/form-data; boundary=XX; boundary=YY"),
        "multipart/form-data; boundary=" + std::string(71, 'X'), std::string("multipart/form-data; boundary=\"X X\"")})
    EXPECT_FALSE(parse_form(type, part("name=a", "b") + "--XX--")) << type;
}

TEST(Multipart, WhatTwoParsersCouldReadInTwoWaysIsRefused) {
  const std::string good = part("name=\"a\"", "b");
  std::string many;
  for (size_t i = 0; i <= kFormPartsMax; ++i) many += good;
  const std::string bodies[] = {"",
                                "--XX",
                                "--XX--",  // no part: the caller misses its fields
                                good,
                                good + "--XX",
                                good + "--XX-",
                                "--XXY\r\n" + good,
                                "--XX\r\n\r\nno header\r\n--XX--",
                                "--XX\r\nContent-Disposition: form-data\r\n\r\nx\r\n--XX--",
                                "--XX\r\nContent-Disposition: attachment; name=a\r\n\r\nx\r\n--XX--",
                                part("name=\"\"", "x") + "--XX--",
                                part("name=\"a\"; name=\"b\"", "x") + "--XX--",
                                part("name=\"a\"\r\nContent-Disposition: form-data; name=\"b\"", "x") + "--XX--",
                                part("name=\"a\"\r\nContent-Transfer-Encoding: base64", "x") + "--XX--",
                                part("name=\"a\"\r\nno colon", "x") + "--XX--",
                                part("name=\"a\"\r\nX: " + std::string(kFormHeaderBytesMax, 'x'), "x") + "--XX--",
                                many + "--XX--"};
  for (const std::string& body : bodies) {
    const auto parts = parse_form(kType, body);
    EXPECT_TRUE(!parts || parts->empty()) << body.substr(0, 200);
    if (!parts) {
      EXPECT_EQ(parts.error().code, ErrorCode::kInvalidArgument);
    }
  }
}

}  // namespace
}  // namespace runahead
