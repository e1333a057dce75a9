// runahead certs: the certificates of a cluster that has no authority of its own. Again it renews them, and processes that run
// take the new files by themselves (transport/tls/tls_identity.h).
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/cache_file.h"
#include "services/commands/commands.h"
#include "services/commands/input.h"
#include "services/commands/output.h"
#include "transport/tls/certificates.h"

namespace runahead {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int kDaysMax = 36500;
constexpr auto kAllRoles = {TlsRole::kCoordinator, TlsRole::kPrefill, TlsRole::kDecode};

struct CertsOptions {
  std::string folder;
  std::vector<std::string> roles;  // empty: all
  std::vector<std::string> revoked;  // certificate files
  int days = 90, authority_days = 3650;
};

Validity for_days(int days) { return {.until = std::chrono::days(days)}; }

class CertsFolder {
 public:
  explicit CertsFolder(fs::path folder) : folder_(std::move(folder)) {}

  Result<void> make(const CertsOptions& options) {
    std::error_code failed;
    fs::create_directories(folder_, failed);
    const CertificateAndKey authority = TRY(open_authority(options.authority_days));
    if (!options.revoked.empty()) return revoke(authority, options);
    for (const TlsRole role : kAllRoles) {
      const std::string name(to_string(role));
      if (!options.roles.empty() && std::ranges::find(options.roles, name) == options.roles.end()) continue;
      TRY(write_pair(name, TRY(issue_certificate(authority, role, for_days(options.days)))));
    }
    return {};
  }
  const std::vector<std::string>& written() const { return written_; }

 private:
  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  Result<void> write(const std::string& name, const std::string& text) {
    const unsigned mode = name.ends_with(".key") ? 0600 : 0644;
    TRY(write_whole_file(path(name), {std::as_bytes(std::span(text))}, mode));
    written_.push_back(path(name));
    return {};
  }
  // The key first: a process that looks in between finds a pair that does not fit, stays with the one before, and looks again.
  Result<void> write_pair(const std::string& name, const CertificateAndKey& pair) {
    TRY(write(name + ".key", pair.key));
    return write(name + ".pem", pair.certificate);
  }

  Result<CertificateAndKey> open_authority(int days) {
    if (fs::exists(path("ca.pem"))) {
      std::string certificate = TRY(read_text_file(path("ca.pem"))), key = TRY(read_text_file(path("ca.key")));
      return CertificateAndKey{std::move(certificate), std::move(key)};
    }
    CertificateAndKey made = TRY(make_authority(for_days(days)));
    TRY(write_pair("ca", made));
    return made;
  }

  Result<void> revoke(const CertificateAndKey& authority, const CertsOptions& options) {
    std::vector<std::string> certificates;
    for (const std::string& file : options.revoked) certificates.push_back(TRY(read_text_file(file)));
    std::string earlier;
    if (fs::exists(path("revoked.pem"))) earlier = TRY(read_text_file(path("revoked.pem")));
    return write("revoked.pem", TRY(revoke_certificates(authority, certificates, earlier, for_days(options.days))));
  }

  fs::path folder_;
  std::vector<std::string> written_;
};

Result<void> certs(const CertsOptions& options, const CommonOptions& common) {
  CertsFolder folder(options.folder);
  TRY(folder.make(options));
  if (common.json()) print_json({{"files", folder.written()}});
  else if (!common.quiet) fmt::print("{}\n", fmt::join(folder.written(), "\n"));
  return {};
}

}  // namespace

void add_certs(CommandLine& line) {
  const auto options = std::make_shared<CertsOptions>();
  CLI::App* command =
      line.add("certs", "make or renew the certificates that the processes of a cluster show each other",
               [options](const CommonOptions& common) { return certs(*options, common); });
  command
      ->add_option(
          "folder", options->folder,
          "where ca, coordinator, prefill and decode have their .pem and .key; an authority that is there stays")
      ->required();
  command->add_option("--role", options->roles, "only this one; may be given several times")
      ->check(CLI::IsMember({"coordinator", "prefill", "decode"}));
  command->add_option("--days", options->days, "that a certificate, or the list of --revoke, is valid")
      ->check(whole_number(1, kDaysMax));
  command->add_option("--authority-days", options->authority_days, "that a new authority is valid")
      ->check(whole_number(1, kDaysMax));
  command->add_option("--revoke", options->revoked,
                      "a certificate file: put it into revoked.pem, for --tls-revoked, and renew nothing");
}

}  // namespace runahead
