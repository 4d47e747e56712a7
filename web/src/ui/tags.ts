/** Tags in one line of text, separated by commas; one that has a comma, a quote or space at an end stands in quotes, which are doubled within. */

export function writtenTags(tags: readonly string[]): string {
  return tags.map((tag) => (/[,"]|^\s|\s$/.test(tag) ? `"${tag.replaceAll('"', '""')}"` : tag)).join(', ');
}

/** The tags of a text, each once. A quote that isn't closed is a character like any other. */
export function tagsOf(text: string): string[] {
  const parts = text.match(/\s*"(?:[^"]|"")*"\s*(?=,|$)|[^,]+/g) ?? [];
  const tags = parts.map((part) => {
    const quoted = /^\s*"((?:[^"]|"")*)"\s*$/.exec(part);
    return quoted ? quoted[1]!.replaceAll('""', '"') : part.trim();
  });
  return [...new Set(tags.filter(Boolean))];
}
