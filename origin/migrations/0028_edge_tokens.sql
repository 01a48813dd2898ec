-- Edges that joined by a token read artifacts, and the key of visitors' cookies, which others who read no longer see.
UPDATE tokens SET role = 'edge'
WHERE role = 'read' AND id IN (SELECT read_token FROM edges WHERE read_token IS NOT NULL);
