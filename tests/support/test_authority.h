// An authority and certificate files for tests, in a folder that goes with it.
#pragma once

#include <gtest/gtest.h>

#include <fstream>

#include "tests/support/temp_dir.h"
#include "transport/tls/certificates.h"

namespace runahead::test {

class TestAuthority {
 public:
  TestAuthority() : authority_(*make_authority({.until = std::chrono::hours(1)})) {
    write("ca.pem", authority_.certificate);
  }

  // Files of a fresh certificate, named after it.
  TlsFiles files(const std::string& name, TlsRole role, Validity validity = {.until = std::chrono::hours(1)}) {
    issue(name, role, validity);
    return {
        .certificate = path(name + ".pem"), .key = path(name + ".key"), .authorities = path("ca.pem"), .revoked = {}};
  }
  void issue(const std::string& name, TlsRole role, Validity validity = {.until = std::chrono::hours(1)}) {
    const auto made = issue_certificate(authority_, role, validity);
    ASSERT_TRUE(made) << made.error().message;
    write(name + ".pem", made->certificate);
    write(name + ".key", made->key);
  }
  // The file of a list with these names.
  std::string revoke(const std::vector<std::string>& names) {
    std::vector<std::string> certificates;
    for (const std::string& name : names) certificates.push_back(read(name + ".pem"));
    const auto list = revoke_certificates(authority_, certificates, "", {.until = std::chrono::hours(1)});
    EXPECT_TRUE(list) << (list ? "" : list.error().message);
    write("revoked.pem", *list);
    return path("revoked.pem");
  }
  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  std::string read(const std::string& name) const {
    std::ifstream in(path(name));
    return {std::istreambuf_iterator<char>(in), {}};
  }
  void write(const std::string& name, const std::string& text) { std::ofstream(path(name)) << text; }
  const CertificateAndKey& authority() const { return authority_; }

 private:
  TempDir folder_;
  CertificateAndKey authority_;
};

}  // namespace runahead::test
