package policy

import "strings"

// unknownKey says what may have been meant.
func unknownKey(name string, l Level) string {
	best, distance := Key{}, len(name)
	keys := Keys()
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = k.Name
		if d := editDistance(strings.ToLower(name), k.Name); d < distance {
			best, distance = k, d
		}
	}
	// Beyond half of its letters a word is another word.
	if best.Name == "" || distance > (len(best.Name)+1)/2 {
		return "unknown key; the keys are " + strings.Join(names, ", ")
	}
	return "unknown key; the nearest is " + l.spell(best)
}

// editDistance counts the insertions, deletions, replacements and swaps of neighbours that turn a into b.
func editDistance(a, b string) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
