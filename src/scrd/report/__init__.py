"""What a person looks at: overlays, figures and the HTML report."""
