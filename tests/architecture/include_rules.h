#ifndef MNEME_TESTS_ARCHITECTURE_INCLUDE_RULES_H_
#define MNEME_TESTS_ARCHITECTURE_INCLUDE_RULES_H_

// Which file may include which: the rooms, and the order of the units inside the engine. The tables
// are in include_rules.cc.

#include <map>
#include <string>
#include <vector>

namespace mneme {

// Path from the root of the repository (with '/') to content.
using SourceFiles = std::map<std::string, std::string>;

// One sentence for each include in `files` that the rules forbid, and for each file of the engine
// that the table of units does not know.
std::vector<std::string> IncludeViolations(const SourceFiles& files);

}  // namespace mneme

#endif  // MNEME_TESTS_ARCHITECTURE_INCLUDE_RULES_H_
