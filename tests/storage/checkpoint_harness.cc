#include "tests/storage/checkpoint_harness.h"

#include <cstring>
#include <fstream>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "storage/coding.h"

namespace mneme {
namespace {

std::string Flipped(std::string bytes, size_t at) {
  bytes[at] = static_cast<char>(bytes[at] ^ 0x10);
  return bytes;
}

void Refit(std::string* bytes, size_t begin, size_t end) {
  const uint64_t checksum = Checksum(absl::string_view(*bytes).substr(begin, end - begin));
  std::memcpy(bytes->data() + end, &checksum, sizeof checksum);
}

// A section whose checksums fit its content.
std::string Refitted(std::string section) {
  Refit(&section, 0, kSectionHeadBytes - kChecksumBytes);
  Refit(&section, kSectionHeadBytes, section.size() - kChecksumBytes);
  return section;
}

}  // namespace

absl::Status MemoryFile::ReadAt(uint64_t offset, size_t count, char* destination) const {
  if (offset > bytes.size() || count > bytes.size() - offset) {
    return absl::DataLossError("behind the end");
  }
  std::memcpy(destination, bytes.data() + offset, count);
  return absl::OkStatus();
}

absl::Status MemoryFile::Append(absl::string_view more) {
  bytes.append(more.data(), more.size());
  return absl::OkStatus();
}

std::string ReadFile(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

void WriteFile(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

TakenApart::TakenApart(const std::string& bytes) : header(bytes.substr(0, kHeaderBytes)) {
  for (size_t at = kHeaderBytes; at < bytes.size();) {
    ByteReader reader(absl::string_view(bytes).substr(at, kSectionHeadBytes));
    StoredSection section;
    section.head.kind = reader.Fixed<SectionKind>();
    section.head.index = reader.Fixed<uint32_t>();
    section.head.length = reader.Fixed<uint64_t>();
    section.head.sealed = reader.Bool();
    const size_t size = kSectionHeadBytes + section.head.stored_bytes() + kChecksumBytes;
    section.bytes = bytes.substr(at, size);
    sections.push_back(std::move(section));
    at += size;
  }
}

std::string TakenApart::Joined() const {
  std::string bytes = header;
  for (const StoredSection& section : sections) bytes += section.bytes;
  return bytes;
}

std::vector<Damage> Damages(const std::string& bytes, const std::string& other) {
  const TakenApart whole(bytes), foreign(other);
  std::vector<Damage> damages;
  damages.push_back({"header truncated", bytes.substr(0, kHeaderBytes / 2)});
  damages.push_back({"header exchanged", foreign.header + bytes.substr(kHeaderBytes)});
  damages.push_back({"bytes behind the end", bytes + "x"});
  for (size_t at = 0; at < kHeaderBytes; ++at) {
    damages.push_back({absl::StrCat("header flipped at ", at), Flipped(bytes, at)});
  }
  size_t begin = kHeaderBytes;
  for (size_t i = 0; i < whole.sections.size(); ++i) {
    const auto& [head, stored] = whole.sections[i];
    const std::string name = NameOf(head.kind, head.index);
    const auto add = [&](const std::string& what, const std::string& replaced) {
      TakenApart changed = whole;
      changed.sections[i].bytes = replaced;
      damages.push_back({absl::StrCat(name, " ", what), changed.Joined()});
    };
    damages.push_back({name + " truncated", bytes.substr(0, begin + stored.size() - 1)});
    damages.push_back({name + " truncated in its head", bytes.substr(0, begin + 3)});
    damages.push_back({"file ends before " + name, bytes.substr(0, begin)});
    for (size_t at = 0; at < kSectionHeadBytes; ++at) {
      add(absl::StrCat("flipped in its head at ", at), Flipped(stored, at));
    }
    for (size_t at :
         {size_t{0}, size_t{4}, size_t{8}, size_t{16}}) {  // kind, index, length, sealed
      std::string flipped = stored;
      flipped[at] = static_cast<char>(flipped[at] ^ 1);
      add(absl::StrCat("flipped at ", at, " with a checksum that fits"), Refitted(flipped));
    }
    const size_t middle = kSectionHeadBytes + (stored.size() - kSectionHeadBytes) / 2;
    add("flipped in its frames", Flipped(stored, middle));
    if (head.sealed) {
      add("flipped in its frames with a checksum that fits", Refitted(Flipped(stored, middle)));
    }
    add("left out", "");
    add("twice", stored + stored);
    if (i < foreign.sections.size()) add("of another file", foreign.sections[i].bytes);
    begin += stored.size();
  }
  return damages;
}

}  // namespace mneme
