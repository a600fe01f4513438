export function Search() {
  return <p class="empty">Nothing here yet.</p>;
}
