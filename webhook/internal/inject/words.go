package inject

import "strings"

// commandsIn takes a shell's script apart into its simple commands, each a list of words. It knows quotes, comments and
// what stands between commands. What is in a substitution is a command, too, and leaves "$()" in the word around it.
func commandsIn(text string) [][]string {
	s := splitter{rest: text}
	for s.rest != "" {
		s.step()
	}
	s.endCommand()
	for len(s.around) > 0 {
		s.leave()
		s.endCommand()
	}
	return s.commands
}

type splitter struct {
	rest     string
	word     strings.Builder
	open     bool // there is a word, if only an empty one in quotes
	words    []string
	commands [][]string
	around   []unfinished // the commands around the substitution that this is in
}

type unfinished struct {
	word  string
	words []string
}

func (s *splitter) endWord() {
	if s.open {
		s.words = append(s.words, s.word.String())
	}
	s.word.Reset()
	s.open = false
}

func (s *splitter) endCommand() {
	s.endWord()
	if len(s.words) > 0 {
		s.commands = append(s.commands, s.words)
	}
	s.words = nil
}

// take puts the next byte into the word.
func (s *splitter) take() {
	s.word.WriteByte(s.rest[0])
	s.rest, s.open = s.rest[1:], true
}

func (s *splitter) step() {
	c := s.rest[0]
	switch {
	case c == ' ' || c == '\t' || c == '\r':
		s.endWord()
	case c == '#' && !s.open:
		end := strings.IndexByte(s.rest, '\n')
		if end < 0 {
			end = len(s.rest)
		}
		s.rest = s.rest[end:]
		return
	case strings.HasPrefix(s.rest, "\\\n"):
		s.endWord()
		s.rest = s.rest[1:]
	case c == '\\' && len(s.rest) > 1:
		s.rest = s.rest[1:]
		s.take()
		return
	case c == '\'' || c == '"':
		s.quoted(c)
		return
	case strings.HasPrefix(s.rest, "$("):
		s.around = append(s.around, unfinished{s.word.String(), s.words})
		s.word.Reset()
		s.open, s.words, s.rest = false, nil, s.rest[1:]
	case c == ')' && len(s.around) > 0:
		s.leave()
	case c == '&' && (strings.HasSuffix(s.word.String(), ">") || strings.HasSuffix(s.word.String(), "<") || strings.HasPrefix(s.rest, "&>")):
		s.take() // 2>&1
		return
	case strings.IndexByte("\n;&|()`", c) >= 0:
		s.endCommand()
	case (c == '{' || c == '}') && !s.open:
		s.endCommand()
	default:
		s.take()
		return
	}
	s.rest = s.rest[1:]
}

// leave goes on behind a substitution.
func (s *splitter) leave() {
	s.endCommand()
	u := s.around[len(s.around)-1]
	s.around = s.around[:len(s.around)-1]
	s.words, s.open = u.words, true
	s.word.WriteString(u.word + "$()")
}

// quoted takes what is in quotes, without them.
func (s *splitter) quoted(quote byte) {
	s.rest, s.open = s.rest[1:], true
	for s.rest != "" && s.rest[0] != quote {
		if quote == '"' && s.rest[0] == '\\' && len(s.rest) > 1 {
			s.rest = s.rest[1:]
		}
		s.take()
	}
	if s.rest != "" {
		s.rest = s.rest[1:]
	}
}
