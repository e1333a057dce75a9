#include "services/process/announcer.h"

#include <unistd.h>

#include <nlohmann/json.hpp>

#include "base/json_text.h"
#include "base/log.h"

namespace runahead {

void Announcer::write_line(const nlohmann::json& line) const {
  if (fd_ < 0) return;
  const std::string text = to_text(line) + "\n";
  for (size_t done = 0; done < text.size();) {
    const ssize_t n = ::write(fd_, text.data() + done, text.size() - done);
    if (n <= 0) return log::warn("cannot announce to the parent process");
    done += static_cast<size_t>(n);
  }
}

void Announcer::ready(const nlohmann::json& addresses) const {
  nlohmann::json line = addresses;
  line["event"] = "ready";
  write_line(line);
}

void Announcer::error(const Error& error) const {
  write_line({{"event", "error"}, {"code", name(error.code)}, {"message", error.message}});
}

}  // namespace runahead
