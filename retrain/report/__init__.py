"""What reports share: HTML that nothing can be smuggled into, its looks, thumbnails and charts."""
