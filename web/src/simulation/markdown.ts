/** Markdown as HTML that is safe to show. Loaded where notes are: marked and DOMPurify are no part of the first view. */
import DOMPurify from 'dompurify';
import { Marked } from 'marked';

const marked = new Marked({ gfm: true, breaks: true, async: false, renderer: { html: ({ text }) => escaped(text) } });

// No images: they would be fetched from other hosts. No forms, no styles, no ids that could stand for others.
const ALLOWED = {
  ALLOWED_TAGS: [
    'a', 'p', 'br', 'hr', 'strong', 'em', 'del', 'code', 'pre', 'blockquote', 'ul', 'ol', 'li', 'h1', 'h2', 'h3', 'h4', 'h5', 'h6',
    'table', 'thead', 'tbody', 'tr', 'th', 'td',
  ],
  ALLOWED_ATTR: ['href', 'title', 'start'],
  ALLOWED_URI_REGEXP: /^(?:https?:|mailto:|[/#])/i,
}; // prettier-ignore

/** HTML in Markdown is shown as the text that it is. */
function escaped(html: string): string {
  return html.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}

export function htmlOf(markdown: string): string {
  const clean = DOMPurify.sanitize(marked.parse(markdown) as string, { ...ALLOWED, RETURN_DOM_FRAGMENT: true });
  for (const heading of clean.querySelectorAll('h1, h2')) {
    const lower = document.createElement('h3'); // the page has its own
    lower.append(...heading.childNodes);
    heading.replaceWith(lower);
  }
  for (const link of clean.querySelectorAll('a[href]')) {
    link.setAttribute('rel', 'noopener noreferrer');
    link.setAttribute('target', '_blank');
  }
  const holder = document.createElement('div');
  holder.append(clean);
  return holder.innerHTML;
}
